"""The kernel's notices about a directory tree (Linux): bounded, and blind to links and to folders left out."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import os
import struct
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Final, Literal

MAX_FOLDERS: Final = 8192
"""Folders of one tree that are watched; changes in others are told at the turn's end."""
MAX_WAITING: Final = 20_000
"""Notices of one tree that wait to be read; older ones are forgotten."""
READ_BYTES: Final = 131_072
REST_S: Final = 0.1
"""Between two full reads the loop has this long for others."""
Sign = Literal["created", "modified", "deleted"]

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_ONLY_FOLDER, _OF_FOLDER, _IGNORED = 0x01000000, 0x40000000, 0x8000
_MASK: Final = _CLOSE_WRITE | _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_FOLDER
_HEAD: Final = struct.Struct("iIII")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def available() -> bool:
    """Whether this system has it."""
    return sys.platform.startswith("linux") and os.path.isdir("/proc/self/fd")


class Notices:
    """The one descriptor of an event loop for all trees: a user may have only few of them (often 128).

    Trees open and watch from threads; news is read in the loop, at a bounded pace.
    """

    _of_loops: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Notices]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._lock = threading.Lock()
        self._descriptor = -1
        self._trees: set[Tree] = set()
        self._watchers: dict[int, list[Tree]] = {}

    @classmethod
    def here(cls) -> Notices:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        return cls._of_loops.setdefault(loop, cls(loop))

    def join(self, tree: Tree) -> None:
        """Begin to listen for `tree`; call it in the loop. Raises OSError when the user has no descriptor left."""
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
                self._listen()
            self._trees.add(tree)

    def leave(self, tree: Tree, watches: Iterable[int]) -> None:
        """Stop listening for `tree`; call it in the loop. Idempotent."""
        self.drop(tree, watches)
        with self._lock:
            self._trees.discard(tree)
            if not self._trees and self._descriptor >= 0:
                if loop := self._loop():
                    loop.remove_reader(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1
                self._watchers.clear()

    def watch(self, tree: Tree, folder: int) -> int:
        """Listen to an open folder; the watch's number. Raises OSError."""
        with self._lock:
            # By descriptor: whatever is at its path by now, this is the folder that was opened without links.
            watch = _checked(_libc().inotify_add_watch(self._descriptor, b"/proc/self/fd/%d" % folder, _MASK))
            trees = self._watchers.setdefault(watch, [])
            if tree not in trees:
                trees.append(tree)
            return watch

    def drop(self, tree: Tree, watches: Iterable[int]) -> None:
        """No longer listen to these folders for `tree`; other trees that share them go on."""
        with self._lock:
            for watch in watches:
                trees = self._watchers.get(watch, [])
                if tree in trees:
                    trees.remove(tree)
                    if not trees:
                        del self._watchers[watch]
                        _libc().inotify_rm_watch(self._descriptor, watch)

    def _listen(self) -> None:
        if loop := self._loop():
            loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        """Hand out what there is. After much news the loop does other things first."""
        with self._lock:
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                return
            for watch, mask, name in _events(data):
                for tree in self._watchers.get(watch, ()):
                    tree.tell(watch, mask, name)
                if mask & _IGNORED:
                    self._watchers.pop(watch, None)
        loop = self._loop()
        if loop and len(data) > READ_BYTES // 4:
            loop.remove_reader(self._descriptor)
            loop.call_later(REST_S, self._go_on)

    def _go_on(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                self._listen()


class Tree:
    """Watches the tree beneath `root`. `wanted` says of a relative folder whether it is looked into.

    Make and close it in the loop; `open` and `read` block on the disk. `news` is set when there is something to read.
    """

    def __init__(self, root: Path, wanted: Callable[[str], bool], *, most: int = MAX_FOLDERS) -> None:
        self.news = asyncio.Event()
        self._root = root
        self._wanted = wanted
        self._most = most
        self._names: dict[int, str] = {}
        self._told: deque[tuple[int, int, str]] = deque(maxlen=MAX_WAITING)
        self._notices = Notices.here()
        self._notices.join(self)

    def open(self) -> None:
        """Begin to watch. Raises OSError when the system has no watch left at all."""
        for _path in self._enter(""):
            pass

    def close(self) -> None:
        """Stop watching; idempotent."""
        self._notices.leave(self, list(self._names))
        self._names.clear()

    @property
    def folders(self) -> int:
        """How many folders are watched."""
        return len(self._names)

    def tell(self, watch: int, mask: int, name: str) -> None:
        """For `Notices`: something happened to a folder of this tree."""
        self._told.append((watch, mask, name))
        self.news.set()

    def read(self) -> dict[str, Sign]:
        """The files that have changed since the last time, with the last that happened to them; never waits."""
        found: dict[str, Sign] = {}
        with contextlib.suppress(IndexError):
            while True:
                self._note(found, *self._told.popleft())
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
                try:
                    watch = self._notices.watch(self, descriptor)
                except OSError as error:
                    if error.errno != errno.ENOSPC or not self._names:
                        raise
                    self._most = len(self._names)  # the user's watches are used up: be content with these
                    return
                self._names[watch] = folder
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
        self._notices.drop(self, gone)


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
