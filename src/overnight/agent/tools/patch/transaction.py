"""Writes the changes of a patch to a workspace: all of them or none, and never outside.

Everything is written beside its place first. Then each file is put there by one rename, with what was there before
kept under another name beside it, until all are in place; if anything fails, what was there is put back. Whoever kills
us in between leaves a journal, by which `recover` does the same. Folders are opened by descriptor, name by name, and no
link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from typing import Final

from overnight.agent.tools.patch.journal import (
    Journal,
    Record,
    Step,
    abandoned,
    new_journal,
    to_disk,
    write_all,
)
from overnight.agent.tools.patch.plan import Change, PatchFailed
from overnight.workspaces import beneath

_NO_HARD_LINKS: Final = frozenset({
    errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS
})  # fmt: skip
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Meanwhile(Exception):
    """Somebody else has changed what was to be changed."""


def carry_out(root: int, changes: tuple[Change, ...], place: Path) -> None:
    """Make `changes` true beneath the directory `root`; journals lie in the folder `place`.

    Raises PatchFailed, and then everything is as it was. Blocks on the disk.
    """
    wanted = [change for change in changes if not change.is_idle]
    if not wanted:
        return
    try:
        with new_journal(place) as journal:
            _Transaction(root, wanted, journal).run()
    except OSError as error:
        raise PatchFailed(f"Failed to write: {error.strerror or error}; nothing was changed") from None


def recover(root: int, place: Path) -> tuple[str, ...]:
    """Finish or take back what a killed patch has left beneath `root`; the paths that were set back.

    Call it before the first tool runs in a workspace. Never raises for what it finds.
    """
    identity = _identity(os.fstat(root))
    found: list[str] = []
    with contextlib.suppress(OSError):
        for journal in abandoned(place):
            record = journal.read()
            if record is None:
                journal.remove()
            elif record.workspace == identity:
                if not record.done:
                    found += [step.path for step in record.steps]
                if _settle(root, record):
                    journal.remove()
    return tuple(found)


class _Transaction:
    def __init__(self, root: int, changes: list[Change], journal: Journal) -> None:
        self._root = root
        self._changes = changes
        self._journal = journal
        self._record = Record(workspace=_identity(os.fstat(root)))

    def run(self) -> None:
        mark = secrets.token_hex(6)
        for number, change in enumerate(self._changes):
            self._record.steps.append(_step(change, f".overnight-{mark}-{number}"))
        self._record.folders = _missing(self._root, self._record.steps)
        try:
            self._journal.write(self._record)
            self._stage()
            self._journal.write(self._record)
            self._replace()
        except (OSError, ValueError, _Meanwhile) as error:
            raise self._taken_back(error) from None
        if _settle(self._root, self._record):
            self._journal.remove()

    def _stage(self) -> None:
        for folder in self._record.folders:
            with beneath.parent(self._root, folder.split("/")) as holder:
                os.mkdir(folder.rpartition("/")[2], dir_fd=holder)
        for change, step in zip(self._changes, self._record.steps, strict=True):
            if step.new is not None and change.after is not None:
                with beneath.parent(self._root, step.path.split("/")) as holder:
                    step.made = _written(holder, step.new, change.after, change.mode)

    def _replace(self) -> None:
        for change, step in zip(self._changes, self._record.steps, strict=True):
            with beneath.parent(self._root, step.path.split("/")) as holder:
                _put(holder, change, step)
        for folder in sorted({step.path.rpartition("/")[0] for step in self._record.steps}):
            with beneath.parent(self._root, [*filter(None, folder.split("/")), "."]) as holder:
                to_disk(holder)
        self._record.done = True
        try:
            self._journal.write(self._record)
        except OSError:
            self._record.done = False
            raise

    def _taken_back(self, error: Exception) -> PatchFailed:
        whole = _settle(self._root, self._record)
        if whole:
            self._journal.remove()
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        rest = "nothing was changed" if whole else "what was changed is set back before the next patch"
        return PatchFailed(f"Failed to write: {reason}; {rest}")


def _step(change: Change, name: str) -> Step:
    return Step(
        path=change.path,
        new=None if change.after is None else f"{name}.new",
        old=None if change.before is None else f"{name}.old",
    )


def _missing(root: int, steps: list[Step]) -> list[str]:
    """The folders that are not there yet, outermost first."""
    found: dict[str, None] = {}
    for step in steps:
        names = step.path.split("/")[:-1]
        for depth in range(1, len(names) + 1):
            folder = "/".join(names[:depth])
            if folder in found or step.new is None:
                continue
            try:
                os.close(beneath.open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY))
            except FileNotFoundError:
                found[folder] = None
            except OSError as error:
                reason = f"{folder}: {error.strerror}; nothing was changed"
                raise PatchFailed(f"Failed to write {step.path}: {reason}") from None
    return list(found)


def _written(holder: int, name: str, data: bytes, mode: int | None) -> tuple[int, int]:
    descriptor = os.open(name, _NEW, 0o666, dir_fd=holder)
    try:
        write_all(descriptor, data)
        if mode is not None:
            os.fchmod(descriptor, mode)
        to_disk(descriptor)
        return _identity(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _put(holder: int, change: Change, step: Step) -> None:
    name = step.path.rpartition("/")[2]
    status = _status(holder, name)
    unchanged = (
        status is None if change.before is None else status is not None and change.before.is_still(status)
    )
    if not unchanged:
        raise _Meanwhile(f"{step.path} was changed by somebody else meanwhile")
    if step.new is None and step.old is not None:
        os.rename(name, step.old, src_dir_fd=holder, dst_dir_fd=holder)
    elif step.new is not None and step.old is None:
        _create(holder, step.new, name)
    elif step.new is not None and step.old is not None:
        _keep(holder, name, step.old)
        os.replace(step.new, name, src_dir_fd=holder, dst_dir_fd=holder)


def _create(holder: int, new: str, name: str) -> None:
    """By a link, since a rename would replace what appears in that moment."""
    try:
        os.link(new, name, src_dir_fd=holder, dst_dir_fd=holder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.rename(new, name, src_dir_fd=holder, dst_dir_fd=holder)


def _keep(holder: int, name: str, old: str) -> None:
    """By a link, so that at no moment there is no such file."""
    try:
        os.link(name, old, src_dir_fd=holder, dst_dir_fd=holder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.rename(name, old, src_dir_fd=holder, dst_dir_fd=holder)


def _settle(root: int, record: Record) -> bool:
    """Set back everything, or, where all is done, remove what was kept. False when something stood in the way."""
    settled = True
    for step in reversed(record.steps):
        try:
            with beneath.parent(root, beneath.parts(step.path)) as holder:
                _settle_step(holder, step, done=record.done)
        except FileNotFoundError:
            continue  # its folder was not made
        except (OSError, ValueError):
            settled = False
    if not record.done:
        for folder in reversed(record.folders):
            settled = _unmade(root, folder) and settled
    return settled


def _unmade(root: int, folder: str) -> bool:
    """Remove a folder that was made, unless somebody else has put something there. False when that could not be."""
    try:
        with beneath.parent(root, beneath.parts(folder)) as holder:
            os.rmdir(folder.rpartition("/")[2], dir_fd=holder)
    except FileNotFoundError:
        return True
    except OSError as error:
        return error.errno in {errno.ENOTEMPTY, errno.EEXIST}
    except ValueError:
        return False
    return True


def _settle_step(holder: int, step: Step, *, done: bool) -> None:
    if not done:
        _set_back(holder, step)
    for name in (step.new, step.old):
        if name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=holder)


def _set_back(holder: int, step: Step) -> None:
    """What the disk says decides, not how far we think we came. A file that somebody else has put there stays."""
    name = step.path.rpartition("/")[2]
    there = _status(holder, name)
    ours = there is not None and step.made is not None and _identity(there) == step.made
    if step.old is not None and _status(holder, step.old) is not None:
        if there is None or ours:
            os.replace(step.old, name, src_dir_fd=holder, dst_dir_fd=holder)
    elif step.old is None and ours:
        os.unlink(name, dir_fd=holder)


def _status(holder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=holder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
