"""The documents say what the code says, and their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
CONCEPTS = sorted((ROOT / "docs" / "concepts").glob("*.md"))


def test_reference_pages_are_what_the_code_says() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", CONCEPTS, ids=lambda page: page.stem)
def test_every_concept_lists_numbered_invariants_and_who_attacks_them(page: Path) -> None:
    _, found, section = page.read_text().partition("\n## Invariants\n")
    assert found, "no section Invariants"
    entries = re.findall(r"^(\d+)\. (.+?)(?=^\d+\. |^## |\Z)", section, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    assert entries
    for number, text in entries:
        areas = re.findall(r"`(tests/[\w/]+(?:\.py)?)`", text)
        assert areas, f"invariant {number} names no test area"
        assert [area for area in areas if not (ROOT / area).exists()] == [], f"invariant {number}"
