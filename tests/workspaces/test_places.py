"""Where the paths of an action lead, for whoever decides about it."""

import hashlib
import os
from pathlib import Path

import pytest

from overnight.workspaces.places import MOST_HASHED, place_of


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "w"
    path.mkdir()
    (path / "a.txt").write_text("a")
    (path / "sub").mkdir()
    (tmp_path / "outside").write_text("o")
    (path / "link").symlink_to(tmp_path / "outside")
    (path / "inner").symlink_to("a.txt")
    (path / "up").symlink_to("..")
    (path / "circle").symlink_to("circle")
    os.mkfifo(path / "fifo")
    return path


@pytest.mark.parametrize(
    "given, resolved, inside, kind",
    [
        ("a.txt", "w/a.txt", True, "file"),
        ("./sub/../a.txt", "w/a.txt", True, "file"),
        ("sub", "w/sub", True, "folder"),
        (".", "w", True, "folder"),
        ("new/deep/file", "w/new/deep/file", True, "missing"),
        ("a.txt/below", "w/a.txt/below", True, "missing"),
        ("inner", "w/a.txt", True, "file"),
        ("link", "outside", False, "file"),
        ("up/outside", "outside", False, "file"),
        ("../outside", "outside", False, "file"),
        ("../w2/x", "w2/x", False, "missing"),
        ("fifo", "w/fifo", True, "other"),
    ],
)
def test_links_and_dots_are_followed(
    workspace: Path, given: str, resolved: str, inside: bool, kind: str
) -> None:
    found = place_of(workspace, given, hashed=False)
    assert (found.given, found.resolved) == (given, str(workspace.parent / resolved))
    assert (found.inside, found.kind, found.sha256) == (inside, kind, None)


def test_absolute_paths(workspace: Path) -> None:
    assert place_of(workspace, str(workspace / "a.txt"), hashed=False).inside
    assert not place_of(workspace, "/etc/passwd", hashed=False).inside
    assert not place_of(workspace, f"{workspace}2/x", hashed=False).inside


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "circle"])
def test_what_cannot_be_looked_at_counts_as_outside_or_other(workspace: Path, path: str) -> None:
    found = place_of(workspace, path, hashed=True)
    assert (found.kind, found.sha256) in {("other", None), ("missing", None)}


def test_a_workspace_that_is_a_link_itself(workspace: Path) -> None:
    link = workspace.parent / "alias"
    link.symlink_to(workspace)
    assert place_of(link, "a.txt", hashed=False).inside


def test_content_counts_where_it_is_asked_for(workspace: Path) -> None:
    found = place_of(workspace, "a.txt", hashed=True)
    assert found.sha256 == hashlib.sha256(b"a").hexdigest()
    with (workspace / "big").open("wb") as file:
        file.truncate(MOST_HASHED + 1)
    assert place_of(workspace, "big", hashed=True).sha256 == f"{MOST_HASHED + 1} bytes"
