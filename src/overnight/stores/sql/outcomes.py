"""What a failure of the database means to whoever asked for the write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from overnight.errors import DiskFull, OutcomeUnknown, OvernightError, Unavailable, UnsafeDatabase

_FULL = "SQLITE_FULL"
_IO = "SQLITE_IOERR"
_SCARCE = 1 << 20
"""Free bytes below which an I/O error is put down to the full disk."""


def free_bytes(path: Path) -> int:
    """What the file system of `path` has left for this user."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def is_storage_failure(error: Exception) -> bool:
    """Whether the disk failed, so that the library may have ended the whole transaction by itself."""
    name = _name(error)
    return name == _FULL or name.startswith((_IO, "SQLITE_NOMEM", "SQLITE_CORRUPT", "SQLITE_NOTADB"))


def in_unit(error: Exception, folder: Path) -> OvernightError:
    """A storage failure before the commit: certainly not stored."""
    if _is_full(error, folder):
        return DiskFull(f"nothing was stored: {error}", mend="free some disk space")
    return Unavailable(f"nothing was stored: {error}")


def at_start(error: Exception, path: Path) -> OvernightError:
    """A database that cannot be opened: the disk, or what is in the file."""
    if _is_full(error, path.parent):
        return DiskFull(f"{path} cannot be opened: {error}", mend="free some disk space")
    return UnsafeDatabase(
        f"{path} cannot be opened: {error}", mend="see `overnight db check`, or restore a backup"
    )


def in_query(error: Exception) -> OvernightError:
    """A storage failure while reading."""
    return Unavailable(f"the database could not be read: {error}")


def at_commit(error: Exception, folder: Path) -> OvernightError:
    """A failed commit. The full disk leaves no doubt, as the commit mark was not written; all else does."""
    if _name(error) == _FULL:
        return in_unit(error, folder)
    return OutcomeUnknown(f"the commit failed: {error}", mend="read the state again before trying again")


def _is_full(error: Exception, folder: Path) -> bool:
    if _name(error) == _FULL:
        return True
    if not _name(error).startswith(_IO):
        return False
    try:
        return free_bytes(folder) < _SCARCE
    except OSError as unreadable:
        return unreadable.errno == errno.ENOSPC


def _name(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", ""))
