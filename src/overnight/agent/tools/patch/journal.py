"""What a patch is about to do, on disk before it begins: so that one that was killed half way can be taken back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
MOST_BYTES: Final = 8 << 20
_SUFFIX: Final = ".json"
_LOCK: Final = ".lock"


@dataclass(slots=True, kw_only=True)
class Step:
    """One file. `new` and `old` are names beside it: what is put there, and what was there before."""

    path: str
    new: str | None = None
    old: str | None = None
    made: tuple[int, int] | None = None
    """Device and inode of what is put there, once it is written."""


@dataclass(slots=True, kw_only=True)
class Record:
    """A whole patch. `done`: all of it stands, and only `new` and `old` are left to be removed."""

    workspace: tuple[int, int]
    """Device and inode of its root."""
    steps: list[Step] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    """Made for it, outermost first."""
    done: bool = False

    def to_json(self) -> dict[str, object]:
        """As it is written."""
        steps = [[step.path, step.new, step.old, step.made] for step in self.steps]
        return {
            "version": VERSION, "workspace": self.workspace, "steps": steps, "folders": self.folders, "done": self.done,
        }  # fmt: skip

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Record:
        """The inverse. Raises KeyError, TypeError or ValueError for whatever else was in the file."""
        if found["version"] != VERSION:
            raise ValueError("another version")
        steps = [
            Step(path=str(path), new=_plain(new), old=_plain(old), made=_pair(made))
            for path, new, old, made in found["steps"]
        ]
        workspace = _pair(found["workspace"])
        if workspace is None:
            raise ValueError("no workspace")
        folders = [str(path) for path in found["folders"]]
        return cls(workspace=workspace, steps=steps, folders=folders, done=found["done"] is True)


class Journal:
    """The record of one patch in the agent's folder, locked for as long as the patch is at work."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self._name = name

    def write(self, record: Record) -> None:
        """Replace what is there; on disk when this returns. Raises OSError, and then the former record stands."""
        data = json.dumps(record.to_json()).encode()
        fresh = f"{self._name}.tmp"
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self._folder
        )
        try:
            write_all(descriptor, data)
            to_disk(descriptor)
        finally:
            os.close(descriptor)
        os.replace(fresh, self._name + _SUFFIX, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        # The record stands from here on; that it might be lost with the power is no reason to call it failed.
        with contextlib.suppress(OSError):
            os.fsync(self._folder)

    def read(self) -> Record | None:
        """The record; None when there is none that can be read."""
        try:
            descriptor = os.open(
                self._name + _SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder
            )
            with os.fdopen(descriptor, "rb") as file:
                return Record.from_json(json.loads(file.read(MOST_BYTES)))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Nothing is left to be taken back. Never raises: a record of what is over does no harm."""
        for suffix in (_SUFFIX, ".tmp", _LOCK):
            with contextlib.suppress(OSError):
                os.unlink(self._name + suffix, dir_fd=self._folder)


@contextlib.contextmanager
def new_journal(place: Path) -> Iterator[Journal]:
    """A journal of its own in the folder `place`, which is made. Raises OSError at its beginning, never at its end."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(place) as folder:
        name = secrets.token_hex(8)
        lock = _lock(folder, name, os.O_CREAT)
        journal = Journal(folder, name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield journal
        finally:
            if journal.read() is None:
                journal.remove()
            _close(lock)


def abandoned(place: Path) -> Iterator[Journal]:
    """The journals in `place` whose patch is at work no more; each is locked until the next is asked for."""
    if not place.is_dir():
        return
    with _opened(place) as folder:
        for name in sorted(os.listdir(folder)):
            if not name.endswith(_SUFFIX):
                continue
            stem = name.removesuffix(_SUFFIX)
            lock = _lock(folder, stem, os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield Journal(folder, stem)
            except BlockingIOError:
                continue
            finally:
                _close(lock)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def to_disk(descriptor: int) -> None:
    """Wait until a file or folder is on disk, where its file system can say so. Raises OSError when it cannot be."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EROFS}:
            raise


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[int]:
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        _close(folder)


def _close(descriptor: int) -> None:
    """Whatever close says, the descriptor is closed, and nothing was written through these."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _lock(folder: int, name: str, flags: int) -> int:
    return os.open(name + _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600, dir_fd=folder)


def _plain(name: object) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or "/" in name or name in {"", ".", ".."}:
        raise ValueError("no name of a file")
    return name


def _pair(found: object) -> tuple[int, int] | None:
    match found:
        case None:
            return None
        case [int(first), int(second)] | (int(first), int(second)):
            return first, second
        case _:
            raise ValueError("no pair of numbers")
