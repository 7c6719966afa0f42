"""Patches that are meant to do harm: nothing is changed, and never anything outside the workspace."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from pathlib import Path

import pytest
from tests.agent.trees import Ground, plant, snapshot, wrap

from overnight.agent.tools.apply_patch import ApplyPatch
from overnight.agent.tools.patch import plan
from overnight.agent.tools.tool import Fatal, ForModel
from overnight.workspaces import beneath

pytestmark = pytest.mark.anyio

PATHS = [
    "../outside/precious.txt", "a/../../outside/precious.txt", "..", "../", "./..", "a/..", "a/../b", "/etc/passwd",
    "//etc/passwd", "/", ".", "./", "a/", "a//../../outside/passwd", ".git/hooks/pre-commit", "sub/.git/config",
    ".GIT/config", "a/./../..", "x" * 5000, "a/" * 3000 + "b", "y" * 300, "link/precious.txt", "link", "file-link",
    "loop/x", "loop", "fifo", "socket", "folder", "f/below", "\x7f/../../outside/passwd", "a\\../../outside/passwd",
]  # fmt: skip


def hostile(ground: Ground) -> None:
    plant(ground.root, {"f": "a\n", "folder/x": "x\n"})
    (ground.root / "link").symlink_to(ground.outside)
    (ground.root / "file-link").symlink_to(ground.outside / "precious.txt")
    (ground.root / "inner-link").symlink_to("f")
    (ground.root / "loop").symlink_to("loop")
    os.mkfifo(ground.root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.suppress(OSError):  # its path may be too long
        listener.bind(str(ground.root / "socket"))


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
async def test_no_path_leads_out_or_to_what_is_no_file(ground: Ground, path: str) -> None:
    hostile(ground)
    for body in (
        f"*** Add File: {path}\n+x",
        f"*** Delete File: {path}",
        f"*** Update File: {path}\n+x",
        f"*** Update File: f\n*** Move to: {path}\n-a\n+b",
        f"*** Update File: {path}\n*** Move to: new",
    ):
        words = await ground.refused(f"*** Add File: first\n+x\n{body}\n*** Add File: last\n+x")
        assert "Invalid patch hunk on line" in words or "Failed to" in words, words


@pytest.mark.parametrize("cwd", ["..", "/", "/etc", "link", "missing", "f", "\0", "folder/../.."])
async def test_no_base_leads_out(ground: Ground, cwd: str) -> None:
    hostile(ground)
    was = snapshot(ground.root)
    with pytest.raises(ForModel, match="Invalid patch: cwd"):
        await ground.patch("*** Add File: x\n+x", cwd=cwd)
    assert snapshot(ground.root) == was


async def test_links_within_are_refused_by_name(ground: Ground) -> None:
    hostile(ground)
    assert "a symbolic link" in await ground.refused("*** Update File: inner-link\n-a\n+b")
    assert "a symbolic link" in await ground.refused("*** Delete File: inner-link")


async def test_a_file_cannot_be_a_folder_too(ground: Ground) -> None:
    plant(ground.root, {"f": "a\n"})
    words = await ground.refused("*** Add File: n\n+x\n*** Add File: n/m\n+x")
    assert words == "Invalid patch: n cannot be a file and hold n/m as well"
    assert "a file where a folder is expected" in await ground.refused(
        "*** Delete File: f\n*** Add File: f/g\n+x"
    )


async def test_what_may_not_be_written_is_not_replaced(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(ground.root, {"f": "a\n"})
    (ground.root / "f").chmod(0o444)
    if os.geteuid() == 0:  # root may write everything: the system's answer to anybody else stands in for it
        opened = beneath.open_beneath

        def refusing(root: int, relative: str, flags: int = os.O_RDONLY) -> int:
            if flags & os.O_WRONLY:
                raise PermissionError(13, "Permission denied")
            return opened(root, relative, flags)

        monkeypatch.setattr(beneath, "open_beneath", refusing)
    words = await ground.refused("*** Update File: f\n-a\n+b")
    assert words == "Failed to read file to update f: permission denied"


async def test_a_hard_link_is_parted_from_what_lies_outside(ground: Ground) -> None:
    os.link(ground.outside / "precious.txt", ground.root / "f")
    await ground.patch("*** Update File: f\n-precious\n+mine")
    assert ground.read("f") == b"mine\n"


async def test_sizes_have_a_bound(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_BYTES", 1000)
    monkeypatch.setattr(plan, "MOST_WRITTEN", 2000)
    with (ground.root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    plant(ground.root, {"f": "a\n"})
    assert "has more than 1000 bytes" in await ground.refused("*** Update File: sparse\n+x")
    assert "a file may have 1000 bytes" in await ground.refused(f"*** Add File: n\n+{'x' * 1001}")
    many = "\n".join(f"*** Add File: n{n}\n+{'x' * 900}" for n in range(3))
    assert "those of a patch 2000" in await ground.refused(many)
    doubling = "\n".join(
        f"*** Update File: f\n*** Move to: f{n}\n*** Add File: f\n+{'x' * 400}" for n in range(9)
    )
    assert "those of a patch 2000" in await ground.refused(doubling)
    # A huge file that only goes away is not read.
    await ground.patch("*** Delete File: sparse")


async def test_a_patch_that_is_made_to_take_long_is_given_up(ground: Ground) -> None:
    plant(ground.root, {"f": "a\n" * 100_000})
    lines = "\n".join([" a"] * 2000)
    assert "takes too long" in await ground.refused(f"*** Update File: f\n@@\n{lines}\n-b\n+c")
    chunks = "\n".join(f"@@ nowhere{n}\n-x" for n in range(2))
    assert "Failed to find context" in await ground.refused(f"*** Update File: f\n{chunks}")


async def test_what_changed_since_the_approval_is_not_touched(ground: Ground) -> None:
    plant(ground.root, {"f": "a\nb\n"})
    arguments = {"patch": wrap("*** Update File: f\n-a\n+A")}
    shown = await ApplyPatch().preview(arguments, ground.context)
    approved = dataclasses.replace(ground.context, approved=shown.digest)
    plant(ground.root, {"f": "a\nb\nc\n"})
    with pytest.raises(ForModel, match="have changed since"):
        await ApplyPatch().run(arguments, approved)
    assert ground.read("f") == b"a\nb\nc\n"
    plant(ground.root, {"f": "a\nb\n"})
    await ApplyPatch().run(arguments, approved)
    assert ground.read("f") == b"A\nb\n"


async def test_a_workspace_that_is_gone_ends_the_turn(ground: Ground) -> None:
    ground.root.rmdir()
    with pytest.raises(Fatal):
        await ground.patch("*** Add File: f\n+x")


@pytest.mark.parametrize("moment", ["journal", "staged", "putting"])
@pytest.mark.parametrize("target", ["outside", "elsewhere"])
async def test_a_folder_that_is_exchanged_for_a_link_leads_nowhere(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, moment: str, target: str
) -> None:
    """At each moment somebody moves the folder away and puts a link in its place."""
    plant(ground.root, {"sub/precious.txt": "precious\n", "elsewhere/precious.txt": "precious\n", "g": "g\n"})
    swapped = Swap(ground.root, ground.outside if target == "outside" else ground.root / "elsewhere")
    where = {"journal": "mkdir", "staged": "fchmod", "putting": "replace"}[moment]
    swapped.at(where, monkeypatch)
    body = "*** Update File: g\n-g\n+G\n*** Update File: sub/precious.txt\n-precious\n+stolen"
    with pytest.raises(ForModel):
        await ground.patch(f"{body}\n*** Add File: sub/n/x\n+x")
    assert swapped.done
    assert ground.read("g") == b"g\n"
    assert snapshot(ground.root / "elsewhere") == {"precious.txt": ("file", 0o644, b"precious\n")}
    assert (ground.root / "moved/precious.txt").read_bytes() == b"precious\n"


class Swap:
    """Exchanges the folder `sub` for a link, once, when a function of `os` is called for the first time."""

    def __init__(self, root: Path, target: Path) -> None:
        self._root = root
        self._target = target
        self.done = False

    def at(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(os, name)

        def swapping(*args: object, **options: object) -> object:
            if not self.done and (name != "replace" or ".tmp" not in str(args[0])):
                self.done = True
                os.rename(self._root / "sub", self._root / "moved")
                os.symlink(self._target, self._root / "sub")
            return real(*args, **options)

        monkeypatch.setattr(os, name, swapping)
