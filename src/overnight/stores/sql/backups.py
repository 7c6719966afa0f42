"""Copies of a live database, made with SQLite's own backup, which sees one consistent moment."""

from __future__ import annotations

import os
from pathlib import Path

from overnight.errors import Conflict
from overnight.stores.sql.connections import Connections


def copy(connections: Connections, target: Path) -> None:
    """Write a consistent copy of the database to `target`, readable by this user alone, and make it durable.

    Raises Conflict when `target` is there already. May be called while a server uses the database.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Conflict(f"{target} is there already", mend="name another file") from None
    try:
        source = connections.open(writing=False)
        try:
            connections.back_up(source, target)
        finally:
            source.close()
        sync(target)
        sync(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
