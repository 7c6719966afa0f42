"""Searching files: the same answers from ripgrep and from ourselves."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.agent.trees import Ground, plant

from overnight.agent.tools import search
from overnight.agent.tools.globs import glob, read_ignored
from overnight.agent.tools.grep_files import GrepFiles
from overnight.testing.agents.install import agents_folder

pytestmark = pytest.mark.anyio


def ripgrep() -> str | None:
    """On PATH, or the one that comes with a real agent program."""
    found = shutil.which("rg") or next(map(str, agents_folder().glob("codex-*/**/codex-path/rg")), None)
    return found if found and os.access(found, os.X_OK) else None


NONE_HERE = pytest.mark.skipif(ripgrep() is None, reason="ripgrep is not installed here; ours is tested")


@pytest.fixture(params=["ours", pytest.param("rg", marks=NONE_HERE)])
def searching(request: pytest.FixtureRequest, ground: Ground, tmp_path: Path) -> Ground:
    """A ground where PATH leads to ripgrep, or to nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if request.param == "rg" and (program := ripgrep()) is not None:
        (folder / "rg").symlink_to(program)
    ground.context = dataclasses.replace(ground.context, environment={"PATH": str(folder)})
    return ground


async def found(ground: Ground, pattern: str, **more: object) -> list[str]:
    return sorted((await ground.run(GrepFiles(), pattern=pattern, **more)).text.split("\n"))


def age(ground: Ground, files: Mapping[str, int]) -> None:
    for name, when in files.items():
        os.utime(ground.root / name, (when, when))


async def test_the_latest_changed_first(searching: Ground) -> None:
    plant(searching.root, {"a": "needle\n", "b": "needle\n", "c/d": "a needle here\n", "e": "hay\n"})
    age(searching, {"a": 100, "b": 300, "c/d": 200})
    outcome = await searching.run(GrepFiles(), pattern="needle")
    assert (outcome.text, outcome.ok) == ("b\nc/d\na", True)
    assert (await searching.run(GrepFiles(), pattern="needle", limit=2)).text == "b\nc/d"
    age(searching, {"a": 300})
    assert (await searching.run(GrepFiles(), pattern="needle", limit=5000)).text == "a\nb\nc/d"


async def test_nothing_is_told_as_such(searching: Ground) -> None:
    plant(searching.root, {"a": "hay\n"})
    outcome = await searching.run(GrepFiles(), pattern="needle")
    assert (outcome.text, outcome.ok) == ("No matches found.", False)


async def test_patterns_are_about_lines(searching: Ground) -> None:
    plant(
        searching.root,
        {"a": "x\nneedle\ny\n", "b": "x needle\n", "c": "needle", "d": "nee\ndle\n", "e": "", "f": "\n"},
    )
    assert await found(searching, "^needle$") == ["a", "c"]
    assert await found(searching, "nee.dle|nee\\sdle|nee[^x]dle") == ["No matches found."]
    assert await found(searching, "(?i)NEEDLE") == ["a", "b", "c"]
    assert await found(searching, "\\bneedle\\b") == ["a", "b", "c"]
    assert await found(searching, "^$") == ["f"]
    assert await found(searching, "-needle|--files|x need") == ["b"]


async def test_unicode(searching: Ground) -> None:
    plant(searching.root, {"a": "größe\n", "ü b": "größer\n", "bad": b"gr\xc3\xb6\xff\xfe\xc3\xb6\n"})
    assert await found(searching, "gr.ße") == ["a", "ü b"]
    assert await found(searching, "^grö") == ["a", "bad", "ü b"]


async def test_what_is_left_out(searching: Ground) -> None:
    plant(searching.root, {
        ".hidden": "needle", ".git/config": "needle", "binary": b"\0needle\n", "seen": "needle",
        ".gitignore": "*.log\nbuild/\n!keep.log\n/top\n", "a.log": "needle", "keep.log": "needle",
        "build/x": "needle", "sub/build/x": "needle", "top": "needle", "sub/top": "needle",
        "sub/.gitignore": "deep*\n!/a.log\n", "sub/deeper": "needle", "sub/a.log": "needle", "sub/in/a.log": "needle",
    })  # fmt: skip
    (searching.root / "link").symlink_to("seen")
    (searching.root / "out").symlink_to(searching.outside)
    os.mkfifo(searching.root / "pipe")
    assert await found(searching, "needle|precious") == ["keep.log", "seen", "sub/a.log", "sub/top"]
    assert await found(searching, "needle", path="sub") == ["sub/a.log", "sub/top"]
    assert await found(searching, "needle", path="build") == ["build/x"]
    assert await found(searching, "needle", path="a.log") == ["a.log"]


async def test_include(searching: Ground) -> None:
    plant(
        searching.root, dict.fromkeys(("a.py", "b.ts", "c.tsx", "sub/d.py", "sub/in/e.py", "f[1]"), "needle")
    )
    assert await found(searching, "needle", include="*.py") == ["a.py", "sub/d.py", "sub/in/e.py"]
    assert await found(searching, "needle", include="*.{ts,tsx}") == ["b.ts", "c.tsx"]
    assert await found(searching, "needle", include="sub/*.py") == ["sub/d.py"]
    assert await found(searching, "needle", include="sub/**/*.py") == ["sub/d.py", "sub/in/e.py"]
    assert await found(searching, "needle", include="f\\[?]") == ["f[1]"]
    assert await found(searching, "needle", path="sub", include="*.ts") == ["No matches found."]
    assert await found(searching, "needle", include=" ") != ["No matches found."]


@pytest.mark.parametrize("given, words", [
    ({"pattern": " "}, "pattern must not be empty"), ({"limit": 0}, "limit must be greater than zero"),
    ({"pattern": "(a"}, ""), ({"pattern": "a\0"}, "NUL"), ({"pattern": "(?=a)b"}, ""), ({"path": "missing"}, "no such"),
    ({"path": ".."}, "beneath the workspace"), ({"path": "/etc"}, "beneath the workspace"),
    ({"path": "out"}, "leads out of the workspace"), ({"include": "[z"}, "no pattern of paths"),
])  # fmt: skip
async def test_what_cannot_be_searched(searching: Ground, given: dict[str, object], words: str) -> None:
    (searching.root / "out").symlink_to(searching.outside)
    assert words in await searching.told(GrepFiles(), **{"pattern": "needle", **given})


async def test_links_in_the_path_are_followed_within(searching: Ground) -> None:
    plant(searching.root, {"sub/a": "needle"})
    (searching.root / "link").symlink_to("sub")
    assert await found(searching, "needle", path="link") == ["sub/a"]
    assert await found(searching, "needle", path=str(searching.root / "sub")) == ["sub/a"]


async def test_a_search_that_takes_too_long(searching: Ground) -> None:
    plant(searching.root, {f"{n}": "needle\n" for n in range(100)})
    told = await searching.told(GrepFiles(patience_s=0), pattern="needle")
    assert told.endswith(" timed out after 0 seconds")


async def test_ripgrep_that_hangs_is_ended(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "rg").write_text(f"#!{sys.executable}\nimport signal\nsignal.pause()\n")
    (tmp_path / "rg").chmod(stat.S_IRWXU)
    ground.context = dataclasses.replace(ground.context, environment={"PATH": str(tmp_path)})
    assert await ground.told(GrepFiles(patience_s=0.5), pattern="x") == "rg timed out after 0.5 seconds"


async def test_a_long_file_is_searched_in_pieces(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_PIECE", 16)
    plant(ground.root, {"f": "x" * 50 + "\n" + "hay\n" * 30 + "a long needle in it\nlast"})
    ground.context = dataclasses.replace(ground.context, environment={"PATH": ""})
    for pattern, is_there in (
        ("^a long needle in it$", True),
        ("^last$", True),
        ("^x{50}$", True),
        ("hay.a", False),
    ):
        assert (await found(ground, pattern) == ["f"]) is is_there


def test_patterns_of_strangers_are_cheap() -> None:
    hostile = read_ignored(["*a" * 200 + "b", "[", "[]", "\\", "/", "!", "#x", " ", "a" * 2000, "**/**/**/x"])
    assert hostile.says("a" * 5000, folder=False) is None
    assert hostile.says("p/q/x", folder=False) is True


@pytest.mark.parametrize("pattern, path, fits", [
    ("[!a]", "b", True), ("[!a]", "a", False), ("[]a]", "]", True), ("a?c", "a/c", False), ("\\*", "*", True),
    ("**", "a/b", True), ("a/**", "a/b/c", True), ("a/**/b", "a/b", True), ("/a", "b/a", False), ("a b", "a b", True),
    ("{a,{b,c}}", "c", True), ("é*", "éa", True),
])  # fmt: skip
def test_globs(pattern: str, path: str, fits: bool) -> None:
    assert any(each.fullmatch(path) for each in glob(pattern)) is fits
