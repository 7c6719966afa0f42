"""The kernel's notices about a directory tree (Linux): bounded, and blind to links and to folders left out."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

MAX_FOLDERS: Final = 8192
"""Folders of one tree that are watched; changes in others are told at the turn's end."""
Sign = Literal["created", "modified", "deleted"]

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_ONLY_FOLDER, _OF_FOLDER, _IGNORED = 0x01000000, 0x40000000, 0x8000
_MASK: Final = _CLOSE_WRITE | _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_FOLDER
_HEAD: Final = struct.Struct("iIII")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def available() -> bool:
    """Whether this system has it."""
    return sys.platform.startswith("linux") and os.path.isdir("/proc/self/fd")


class Tree:
    """Watches the tree beneath `root`. `wanted` says of a relative folder whether it is looked into.

    Opening and reading block on the disk. Close it when done. Raises OSError when the system has no watch left.
    """

    def __init__(self, root: Path, wanted: Callable[[str], bool], *, most: int = MAX_FOLDERS) -> None:
        self._root = root
        self._wanted = wanted
        self._most = most
        self._names: dict[int, str] = {}
        self._descriptor = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            for _path in self._enter(""):
                pass
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when there is news."""
        return self._descriptor

    def close(self) -> None:
        """Stop watching; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self) -> dict[str, Sign]:
        """The files that have changed since the last time, with the last that happened to them; never waits."""
        found: dict[str, Sign] = {}
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 1 << 16):
                for watch, mask, name in _events(data):
                    self._note(found, watch, mask, name)
        return found

    def _note(self, found: dict[str, Sign], watch: int, mask: int, name: str) -> None:
        if mask & _IGNORED:
            self._names.pop(watch, None)
            return
        folder = self._names.get(watch)
        if folder is None or not name:
            return
        path = f"{folder}/{name}" if folder else name
        if mask & _OF_FOLDER:
            if mask & (_CREATE | _MOVED_TO):
                found.update(dict.fromkeys(self._enter(path), "created"))
            elif mask & _MOVED_FROM:
                self._leave(path)
        elif mask & (_DELETE | _MOVED_FROM):
            found[path] = "deleted"
        elif mask & (_CREATE | _MOVED_TO):
            found[path] = "created"
        elif found.get(path) != "created":
            found[path] = "modified"

    def _enter(self, path: str) -> Iterator[str]:
        """Watch that folder and all beneath it; the files that are there already. What is gone again is skipped."""
        waiting = [path]
        while waiting and len(self._names) < self._most:
            folder = waiting.pop()
            if folder and not self._wanted(folder):
                continue
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError),
                _opened(self._root, folder) as descriptor,
            ):
                # By descriptor: whatever is at that path by now, this is the folder that was opened without links.
                watched = _libc().inotify_add_watch(self._descriptor, b"/proc/self/fd/%d" % descriptor, _MASK)
                if watched < 0 and self._names and ctypes.get_errno() == errno.ENOSPC:
                    self._most = len(self._names)  # the user's watches are used up: be content with these
                    return
                self._names[_checked(watched)] = folder
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        inner = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(inner)
                        elif entry.is_file(follow_symlinks=False):
                            yield inner

    def _leave(self, path: str) -> None:
        gone = [watch for watch, name in self._names.items() if name == path or name.startswith(path + "/")]
        for watch in gone:
            del self._names[watch]
            _libc().inotify_rm_watch(self._descriptor, watch)


@contextlib.contextmanager
def _opened(root: Path, relative: str) -> Iterator[int]:
    """A descriptor of a folder beneath `root`, reached without following a link. Raises OSError."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(None, relative.split("/")):
            try:
                deeper = os.open(name, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                raise FileNotFoundError(error.errno, "not a folder any more", name) from None
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    at = 0
    while at < len(data):
        watch, mask, _cookie, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield watch, mask, os.fsdecode(data[at : at + size].rstrip(b"\0"))
        at += size


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
