"""What a patch would make of the workspace, worked out in memory before anything is written."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass, replace
from typing import Final, Literal

from overnight.agent.tools.patch.fit import Unfit, fit
from overnight.agent.tools.patch.grammar import Add, Delete, Operation, Update
from overnight.agent.tools.patch.text import NotText, apply, decode, encode, split
from overnight.agent.tools.workspace import LINKED
from overnight.workspaces import beneath

MOST_BYTES: Final = 16 << 20
"""Of one file that is updated or written."""
MOST_WRITTEN: Final = 64 << 20
"""Of all files of a patch together."""
_LOOKED_AT: Final = 1 << 20
"""Bytes of a file that goes away or is replaced as a whole: bigger ones are not read to show the difference."""
_MISSING: Final = "no such file"

_Purpose = Literal["update", "delete", "write"]


class PatchFailed(Exception):
    """The patch cannot be carried out; nothing was changed. The message is for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A regular file as it was when it was read."""

    device: int
    inode: int
    size: int
    changed_ns: int
    """When its content was last changed."""
    mode: int
    """Permission bits."""
    data: bytes | None
    """None where it was not read."""

    def is_still(self, status: os.stat_result) -> bool:
        """Whether `status` is that of the same file with the same content."""
        now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return now == (self.device, self.inode, self.size, self.changed_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one path. `before` None: nothing is there; `after` None: nothing will be."""

    path: str
    before: Found | None
    after: bytes | None
    mode: int | None
    """Permission bits of the new file; None: as new files have them."""
    moved_from: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        if self.before is None:
            return self.after is None
        return self.before.data is not None and (self.after, self.mode) == (
            self.before.data,
            self.before.mode,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All changes of a patch, and the lines that say so, one letter and a path each."""

    changes: tuple[Change, ...]
    added: tuple[str, ...]
    modified: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The text that the model gets when all of it was done."""
        letters = (("A", self.added), ("M", self.modified), ("D", self.deleted))
        lines = [f"{letter} {path}" for letter, paths in letters for path in dict.fromkeys(paths)]
        return "\n".join(["Success. Updated the following files:", *lines]) + "\n"

    @property
    def digest(self) -> str:
        """Of exactly these changes to exactly these files."""
        found = hashlib.sha256()
        for change in self.changes:
            before = change.before
            parts = (
                change.path.encode(),
                b"" if before is None else before.data or str(before.size).encode(),
                b"-" if change.after is None else b"+" + change.after,
                f"{before is None} {change.mode}".encode(),
            )
            for part in parts:
                found.update(hashlib.sha256(part).digest())
        return found.hexdigest()


def make_plan(root: int, base: list[str], operations: tuple[Operation, ...]) -> Plan:
    """The plan of `operations`, whose paths are relative to the folder `base` beneath the directory `root`.

    Operations are carried out one after the other in memory: a later one sees what an earlier one has made. Raises
    PatchFailed.
    """
    if not operations:
        raise PatchFailed("No files were modified.")
    return _Planner(root, base).plan(operations)


@dataclass(slots=True)
class _Planned:
    before: Found | None
    there: bool
    data: bytes | None
    """None also where a file is there that was not read."""
    mode: int | None
    moved_from: str | None = None

    def vanish(self) -> None:
        self.there, self.data, self.moved_from = False, None, None

    def change(self, path: str) -> Change:
        return Change(
            path=path, before=self.before, after=self.data, mode=self.mode, moved_from=self.moved_from
        )


def _planned(before: Found | None) -> _Planned:
    """It stays as it is."""
    if before is None:
        return _Planned(before=None, there=False, data=None, mode=None)
    return _Planned(before=before, there=True, data=before.data, mode=before.mode)


class _Planner:
    def __init__(self, root: int, base: list[str]) -> None:
        self._root = root
        self._base = base
        self._paths: dict[str, _Planned] = {}
        self._added: list[str] = []
        self._modified: list[str] = []
        self._deleted: list[str] = []
        self._written = 0

    def plan(self, operations: tuple[Operation, ...]) -> Plan:
        for operation in operations:
            match operation:
                case Add():
                    self._add(operation)
                case Delete():
                    self._delete(operation)
                case Update():
                    self._update(operation)
        self._refuse_nested()
        return Plan(
            changes=tuple(each.change(path) for path, each in self._paths.items()),
            added=tuple(self._added),
            modified=tuple(self._modified),
            deleted=tuple(self._deleted),
        )

    def _add(self, add: Add) -> None:
        path = self._path(add.path, add.line)
        self._put(path, add.content.encode())
        self._added.append(path)

    def _delete(self, delete: Delete) -> None:
        path = self._path(delete.path, delete.line)
        planned = self._known(path, "delete")
        if not planned.there:
            raise PatchFailed(f"Failed to delete file {path}: {_MISSING}")
        planned.vanish()
        self._deleted.append(path)

    def _update(self, update: Update) -> None:
        path = self._path(update.path, update.line)
        planned = self._known(path, "update", whole=True)
        if not planned.there or planned.data is None:
            raise PatchFailed(f"Failed to read file to update {path}: {_MISSING}")
        new = self._patched(path, planned.data, update)
        target = path if update.move_to is None else self._path(update.move_to, update.line)
        if target == path:
            self._put(path, new)
        else:
            planned.vanish()
            moved = self._put(target, new)
            moved.mode, moved.moved_from = planned.mode, path
        self._modified.append(target)

    def _patched(self, path: str, data: bytes, update: Update) -> bytes:
        if not update.chunks:
            return data
        try:
            text = split(decode(data))
            return encode(apply(text, fit(path, text.lines, update.chunks)))
        except NotText as error:
            raise PatchFailed(f"Failed to read file to update {path}: {error}") from None
        except Unfit as error:
            raise PatchFailed(str(error)) from None

    def _put(self, path: str, data: bytes) -> _Planned:
        planned = self._known(path, "write")
        self._written += len(data)
        if len(data) > MOST_BYTES or self._written > MOST_WRITTEN:
            raise PatchFailed(
                f"Failed to write {path}: a file may have {MOST_BYTES} bytes, and those of a patch {MOST_WRITTEN}"
            )
        planned.there, planned.data = True, data
        return planned

    def _known(self, path: str, purpose: _Purpose, *, whole: bool = False) -> _Planned:
        """What is planned for a path so far; at first, that it stays as it is."""
        known = self._paths.get(path)
        if known is None or (whole and known.there and known.data is None):
            before = self._look(path, purpose, whole=whole)
            known = _planned(before)
            self._paths[path] = known
        return known

    def _look(self, path: str, purpose: _Purpose, *, whole: bool) -> Found | None:
        try:
            return look(self._root, path, whole=whole, writable=purpose != "delete")
        except _Refused as error:
            words = {"update": "read file to update", "delete": "delete file", "write": "write"}
            raise PatchFailed(f"Failed to {words[purpose]} {path}: {error}") from None

    def _path(self, given: str, line: int) -> str:
        where = f"Invalid patch hunk on line {line}: "
        if given.startswith("/") or given.endswith("/"):
            raise PatchFailed(f"{where}path must be relative, and name a file: {given[:200]!r}")
        try:
            names = beneath.parts(given)
        except ValueError:
            raise PatchFailed(
                f"{where}path must be relative, and stay beneath the workspace: {given[:200]!r}"
            ) from None
        whole = [*self._base, *names]
        if any(name.casefold() == ".git" for name in whole):
            raise PatchFailed(
                f"{where}a patch does not reach into a repository's own folder: {given[:200]!r}"
            )
        return "/".join(whole)

    def _refuse_nested(self) -> None:
        for path in self._paths:
            names = path.split("/")
            for depth in range(1, len(names)):
                folder = "/".join(names[:depth])
                if folder in self._paths:
                    raise PatchFailed(f"Invalid patch: {folder} cannot be a file and hold {path} as well")


class _Refused(Exception):
    """Why a path cannot be patched."""


def look(root: int, path: str, *, whole: bool, writable: bool) -> Found | None:
    """The regular file at `path` beneath `root`, None when there is none; its content too if `whole` or small.

    `writable`: refuse one that we may not write, although its folder would let us replace it.
    """
    try:
        descriptor = beneath.open_beneath(root, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _Refused(_words(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Refused(
                "it is a directory" if stat.S_ISDIR(status.st_mode) else "it is not a regular file"
            )
        if writable:
            _try_writing(root, path)
        if whole and status.st_size > MOST_BYTES:
            raise _Refused(f"it has more than {MOST_BYTES} bytes")
        found = Found(
            device=status.st_dev, inode=status.st_ino, size=status.st_size,
            changed_ns=status.st_mtime_ns, mode=stat.S_IMODE(status.st_mode) & 0o777, data=None,
        )  # fmt: skip
        if not whole and status.st_size > _LOOKED_AT:
            return found
        return replace(found, data=_content(descriptor, status.st_size))
    finally:
        os.close(descriptor)


def _try_writing(root: int, path: str) -> None:
    try:
        os.close(beneath.open_beneath(root, path, os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ETXTBSY:  # a program that runs is replaced, not written
            raise _Refused(_words(error)) from None


def _content(descriptor: int, size: int) -> bytes:
    pieces: list[bytes] = []
    left = size + 1
    while left > 0 and (piece := os.read(descriptor, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    data = b"".join(pieces)
    if len(data) != size:
        raise _Refused("it changes while it is read")
    return data


def _words(error: OSError) -> str:
    if error.errno in LINKED:
        return "a symbolic link, or a file where a folder is expected, is in the way"
    return (error.strerror or str(error)).lower()
