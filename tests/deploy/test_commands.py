"""Whatever a page, a unit or a container file tells people to type exists, and so does every variable it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deploy.reading import DEPLOY, ROOT, in_text, misread, strangers

PAGES = sorted(
    page for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if "reference" not in page.parts
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_pages_are_commands(page: Path) -> None:
    found = {" ".join(words): words for words in in_text(page.read_text())}
    assert {line: wrong for line, words in found.items() if (wrong := misread(words))} == {}


@pytest.mark.parametrize(
    "file",
    [*PAGES, *sorted(path for path in DEPLOY.rglob("*") if path.is_file())],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_variables_are_settings(file: Path) -> None:
    assert strangers(file.read_text()) == set()
