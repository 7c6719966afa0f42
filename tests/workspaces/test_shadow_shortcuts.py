"""What the shadow does not do: ask git where there is nothing, read what it knows, follow what was swapped."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from overnight.errors import WorkspaceUnreadable
from overnight.workspaces import shadow as module
from overnight.workspaces.git import Git
from overnight.workspaces.shadow import GitShadow


def _kinds(changes: object) -> dict[str, str]:
    assert isinstance(changes, list)
    return {change.path: change.kind for change in changes}


def test_an_empty_workspace_is_the_empty_tree_and_no_repository_is_made(
    shadow: GitShadow, work: Path, tmp_path: Path
) -> None:
    (work / ".overnight").mkdir()
    assert shadow.snapshot("base") == module.EMPTY
    assert shadow.changes(module.EMPTY, None) == []
    assert shadow.patch(module.EMPTY, None, "x", limit=100) == ""
    assert not list(tmp_path.rglob("HEAD"))
    (work / "x").write_text("x\n")
    tree = shadow.snapshot("turn-1")
    assert _kinds(shadow.changes(module.EMPTY, tree)) == {"x": "created"}
    (work / "x").unlink()
    assert _kinds(shadow.changes(tree, shadow.snapshot("turn-2"))) == {"x": "deleted"}


def test_big_files_are_never_read(shadow: GitShadow, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of a terabyte would keep git reading for an hour."""
    monkeypatch.setattr(module, "LISTING_S", 60.0)
    (work / "small").write_text("x")
    with (work / "big").open("wb") as file:
        file.truncate(1 << 40)
    base = shadow.snapshot("base")
    assert list(shadow.changes(base, None)) == []
    assert shadow.snapshot("turn-1") == base
    (work / "small").write_text("y")
    second = shadow.snapshot("turn-2")
    assert _kinds(shadow.changes(base, second)) == {"small": "modified"}
    os.utime(work / "big", ns=(1, 1))
    assert _kinds(shadow.changes(second, None)) == {"big": "modified"}
    third = shadow.snapshot("turn-3")
    assert _kinds(shadow.changes(second, third)) == {"big": "modified"}
    (work / "big").unlink()
    assert _kinds(shadow.changes(third, None)) == {"big": "deleted"}
    (work / "big").write_text("now small\n")
    fourth = shadow.snapshot("turn-4")
    assert "+now small" in shadow.patch(third, fourth, "big", limit=1000)
    (work / "big").write_text("other words\n")
    assert _kinds(shadow.changes(fourth, None)) == {"big": "modified"}
    (work / "big").unlink()
    (work / "big").mkdir()
    (work / "big" / "inside").write_text("x")
    assert _kinds(shadow.changes(fourth, shadow.snapshot("turn-5"))) == {
        "big": "deleted",
        "big/inside": "created",
    }
    assert not (shadow._repository / "ignores-nothing").exists()


def test_a_file_that_was_empty_is_not_read_when_it_has_become_big(
    shadow: GitShadow, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTING_S", 60.0)
    (work / "grown").touch()
    base = shadow.snapshot("base")
    with (work / "grown").open("wb") as file:
        file.truncate((1 << 40) + 1)
    assert _kinds(shadow.changes(base, None)) == {"grown": "modified"}
    assert _kinds(shadow.changes(base, shadow.snapshot("turn-1"))) == {"grown": "modified"}
    assert not (shadow._repository / "ignores-nothing").exists()


def test_a_snapshot_interrupted_before_its_index_is_in_place_hides_no_change(
    shadow: GitShadow, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    (work / "big").write_bytes(b"x" * 5000)
    base = shadow.snapshot("base")
    before = (shadow._repository / "index").read_bytes()
    (work / "big").write_bytes(b"y" * 6000)
    shadow.snapshot("turn-1")
    (shadow._repository / "index").write_bytes(before)
    again = shadow.snapshot("turn-1")
    assert _kinds(shadow.changes(base, again)) == {"big": "modified"}


@pytest.mark.parametrize("around", [False, True])
def test_a_link_in_the_place_of_the_workspace_is_not_followed(
    shadow: GitShadow, work: Path, tmp_path: Path, around: bool
) -> None:
    inner = work / "inner" if around else work
    inner.mkdir(exist_ok=True)
    shadow = GitShadow(repository=tmp_path / "run" / "s.git", workspace=inner)
    (inner / "file").write_text("x")
    base = shadow.snapshot("base")
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    (tmp_path / "outside" / "inner" / "secret").write_text("top secret")
    (tmp_path / "outside" / "secret").write_text("top secret")
    work.rename(tmp_path / "moved")
    work.symlink_to(tmp_path / "outside")
    for look in (
        lambda: shadow.snapshot("turn-1"),
        lambda: shadow.changes(base, None),
        lambda: shadow.patch(base, None, "secret", limit=1000),
    ):
        with pytest.raises(WorkspaceUnreadable, match="link"):
            look()


def test_a_git_without_room_is_told_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\necho 'fatal: cannot write: No space left on device' >&2\nexit 128\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkspaceUnreadable, match="write-tree failed: fatal: cannot write") as refused:
        Git(folder=tmp_path).run("write-tree")
    assert refused.value.mend == "make room on the disk"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a parent set a child's limits")
def test_a_git_that_outlives_its_server_does_not_work_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\nwhile [ $(ulimit -t) = unlimited ]; do :; done\nulimit -t\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Git(folder=tmp_path).run("status", timeout_s=20) == b"600\n"
