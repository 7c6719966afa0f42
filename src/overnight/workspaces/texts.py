"""Text files that agents have read and written by us: beneath the workspace, by descriptor, and by no link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from overnight.errors import WorkspaceRefused
from overnight.workspaces import beneath
from overnight.workspaces.sandbox_guards import SETTINGS

MOST_BYTES: Final = 12 << 20
"""Of one file; a message to an agent has at most 16 MiB, escapes included."""
_OPEN: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_LINKED: Final = frozenset({errno.ELOOP, errno.EXDEV, errno.ENOTDIR})


class Texts:
    """Reads and writes in workspaces. `hidden`: folders that no agent may see, wherever a workspace lies.

    Everything blocks on the disk: run it in a thread.
    """

    def __init__(self, hidden: tuple[Path, ...] = ()) -> None:
        self._hidden = tuple(Path(os.path.realpath(folder)) for folder in hidden)

    def read(self, workspace: Path, path: str) -> str:
        """The whole text of a regular file beneath `workspace`; `path` is absolute, or relative to it.

        Raises FileNotFoundError, and WorkspaceRefused for whatever else is in the way: a link, a path that leads out,
        too many bytes, no UTF-8.
        """
        with _opened(workspace) as root, _told(path):
            descriptor = beneath.open_beneath(root, self._relative(workspace, path))
            with os.fdopen(descriptor, "rb") as file:
                _regular(descriptor, path)
                data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise WorkspaceRefused(f"{path} has more than {MOST_BYTES} bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise WorkspaceRefused(f"{path} is no text in UTF-8") from None

    def write(self, workspace: Path, path: str, text: str, *, guarded: bool) -> None:
        """Make `text` the content of a regular file beneath `workspace`; folders on the way are made.

        `guarded`: what git and other agent programs take commands from stays as it is. Raises WorkspaceRefused as
        `read` does, also for a file that has another name elsewhere (a hard link). Doing it again changes nothing.
        """
        relative = self._relative(workspace, path)
        names = beneath.parts(relative)
        if guarded and _takes_commands(names):
            raise WorkspaceRefused(f"{path} configures other programs, and is not written for an agent")
        data = text.encode("utf-8", "surrogateescape")
        if len(data) > MOST_BYTES:
            raise WorkspaceRefused(f"a text of more than {MOST_BYTES} bytes is not written")
        with _opened(workspace) as root, _told(path), beneath.parent(root, names, make=True) as holder:
            descriptor = os.open(names[-1], os.O_RDWR | os.O_CREAT | _OPEN, 0o644, dir_fd=holder)
            with os.fdopen(descriptor, "r+b") as file:
                _regular(descriptor, path, alone=True)
                file.truncate(0)
                file.write(data)

    def _relative(self, workspace: Path, path: str) -> str:
        whole = Path(os.path.normpath(workspace / path))
        for root in (workspace, Path(os.path.realpath(workspace))):
            if whole != root and whole.is_relative_to(root):
                relative = str(whole.relative_to(root))
                break
        else:
            raise WorkspaceRefused(f"{path} does not lie beneath the workspace")
        own = Path(os.path.realpath(workspace))
        # A workspace of ours lies within a hidden folder itself.
        hidden = [folder for folder in self._hidden if not own.is_relative_to(folder)]
        if any((own / relative).is_relative_to(folder) for folder in hidden):
            raise WorkspaceRefused(f"{path} belongs to Overnight")
        return relative


@contextlib.contextmanager
def _opened(workspace: Path) -> Iterator[int]:
    try:
        with beneath.folder(os.path.realpath(workspace)) as root:
            yield root
    except ValueError as error:
        raise WorkspaceRefused(str(error)) from error


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """What is in the way, in words."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "a link is in the way" if error.errno in _LINKED else os.strerror(error.errno or 0)
        raise WorkspaceRefused(f"{path}: {why}") from error


def _regular(descriptor: int, path: str, *, alone: bool = False) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise WorkspaceRefused(f"{path} is no regular file")
    if alone and found.st_nlink > 1:
        raise WorkspaceRefused(f"{path} has another name elsewhere, and is not written for an agent")


def _takes_commands(names: list[str]) -> bool:
    relative = "/".join(names)
    return ".git" in names or any(relative == name or relative.startswith(f"{name}/") for name in SETTINGS)
