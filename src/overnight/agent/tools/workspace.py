"""The workspace as tools see it: a directory held by its descriptor, and paths that do not leave it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.workspaces import beneath

LINKED: Final = frozenset({errno.ELOOP, errno.EXDEV, errno.ENOTDIR})
"""What the system says when a link (or a file) stands where a folder was expected."""
LONGEST_PATH: Final = 4096


class OutsideWorkspace(Exception):
    """A path that leaves the workspace, or that no file can have."""


class NotThere(Exception):
    """What a path names is missing, or is not of the kind that was asked for; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A directory that is held open. `path` is absolute and resolved; `fd` is closed by whoever opened it."""

    path: Path
    fd: int
    readable: tuple[Path, ...] = ()
    """Other folders, by absolute paths, whose files may be read."""

    def names(self, given: str) -> list[str]:
        """The names from the workspace's root down to `given`, which is relative, or absolute and beneath it.

        Empty for the root itself. Raises OutsideWorkspace.
        """
        if "\0" in given or len(given) > LONGEST_PATH:
            raise OutsideWorkspace(f"{given[:200]!r} is no path that a file can have")
        relative = given
        if given.startswith("/"):
            relative = self._beneath(given)
        names = [name for name in relative.split("/") if name not in {"", "."}]
        if ".." in names:
            raise OutsideWorkspace(f"path must stay beneath the workspace, without '..': {given[:200]!r}")
        return names

    def show(self, names: list[str]) -> str:
        """The path from the root, as people write it."""
        return "/".join(names) or "."

    def resolved(self, given: str) -> list[str]:
        """The names from the root down to where `given` really lies, links followed. Raises OutsideWorkspace."""
        return self._resolved(self.names(given))

    @contextlib.contextmanager
    def reading(self, given: str, *, folder: bool = False) -> Iterator[int]:
        """A descriptor of a regular file (or of a folder), for reading. Links are followed within the workspace.

        Raises OutsideWorkspace and NotThere.
        """
        descriptor = self._open(given, os.O_RDONLY | (os.O_DIRECTORY if folder else 0))
        try:
            kind = os.fstat(descriptor).st_mode
            if not folder and not stat.S_ISREG(kind):
                raise NotThere("it is a directory" if stat.S_ISDIR(kind) else "it is not a regular file")
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, given: str, flags: int) -> int:
        for place in self.readable:
            if given.startswith(f"{place}/"):
                with _told(), beneath.folder(os.path.realpath(place)) as other:
                    return beneath.open_beneath(other, given[len(str(place)) + 1 :], flags)
        names = self.names(given)
        with _told():
            try:
                return self._open_names(names, flags)
            except OSError as error:
                if error.errno not in LINKED:
                    raise
            return self._open_names(self._resolved(names), flags)

    def _open_names(self, names: list[str], flags: int) -> int:
        if not names:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        return beneath.open_beneath(self.fd, "/".join(names), flags)

    def _resolved(self, names: list[str]) -> list[str]:
        """Where links lead, as a path without any: if one of these is exchanged meanwhile, opening it fails."""
        real = os.path.realpath(self.path.joinpath(*names))
        if not Path(real).is_relative_to(self.path):
            raise OutsideWorkspace(f"a link at {self.show(names)!r} leads out of the workspace")
        return list(Path(real).relative_to(self.path).parts)

    def _beneath(self, given: str) -> str:
        root = str(self.path)
        if given.rstrip("/") == root:
            return "."
        if not given.startswith(f"{root}/"):
            raise OutsideWorkspace(f"path must lie beneath the workspace {root}: {given[:200]!r}")
        return given[len(root) + 1 :]


@contextlib.contextmanager
def open_workspace(path: Path, *, readable: tuple[Path, ...] = ()) -> Iterator[Workspace]:
    """The workspace at `path` (links in it are resolved once, now). Raises OSError when it cannot be opened."""
    real = Path(os.path.realpath(path))
    with beneath.folder(real) as descriptor:
        yield Workspace(path=real, fd=descriptor, readable=readable)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the system says, in words that fit behind 'cannot be read:'."""
    try:
        yield
    except ValueError as error:
        raise OutsideWorkspace(str(error)) from None
    except FileNotFoundError:
        raise NotThere("there is no such file or directory") from None
    except OSError as error:
        raise NotThere((error.strerror or str(error)).lower()) from None
