"""The container file: from hash-locked requirements and what is in the repository, run by nobody special."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

from tests.deploy.reading import DEPLOY, ROOT

TEXT = (DEPLOY / "Containerfile").read_text()
STEPS = re.sub(r"\\\n", " ", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")))
COPIED = [
    source
    for words in re.findall(r"^COPY (?!--from)(.+)$", STEPS, re.MULTILINE)
    for source in words.split()[:-1]
]


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    allowed = [
        line[1:]
        for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
        if line[:1] == "!"
    ]
    for source in COPIED:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source
    assert sorted(allowed) == sorted(COPIED)


def test_all_that_the_package_is_built_from_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"]]
    assert [path for path in needed if not any(Path(path).is_relative_to(source) for source in COPIED)] == []


def test_everything_from_outside_is_locked() -> None:
    installs = re.findall(r"pip install ([^&\n]+)", STEPS)
    assert len(installs) == 3
    assert all("--require-hashes" in words or "--no-index" in words for words in installs)
    assert not re.search(r"--(index|extra|find)|://(?!127\.0\.0\.1)", STEPS)


def test_the_lock_of_the_build_is_part_of_the_other() -> None:
    def pins(path: Path) -> set[str]:
        return set(re.findall(r"^[A-Za-z0-9]\S*==\S+", path.read_text(), re.MULTILINE))

    lock = DEPLOY / "requirements-build.lock"
    assert pins(lock) <= pins(ROOT / "requirements-dev.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = {re.split(r"[><=~]", words)[0] for words in project["dependency-groups"]["build"]}
    assert named <= {pin.partition("==")[0] for pin in pins(lock)}
    assert "://" not in lock.read_text()


def test_it_runs_as_nobody_special_and_says_whether_it_is_ready() -> None:
    assert re.search(r"^USER 10001:10001$", STEPS, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*/readyz", STEPS, re.MULTILINE)
    assert STEPS.index("USER 10001") > STEPS.rindex("RUN ")
    assert re.search(r'^ENTRYPOINT \["overnight"\]$', STEPS, re.MULTILINE)
