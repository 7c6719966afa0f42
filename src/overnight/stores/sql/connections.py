"""Opening connections to one SQLite file the way that keeps its promises."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from overnight.stores.sql.library import bind_as_it_is, driver
from overnight.stores.sql.sqlite_link import SqliteLink

Synchronous = Literal["FULL", "NORMAL"]
BUSY_TIMEOUT_MS = 5_000
"""How long a statement waits for another process (`overnight db`, a backup tool) that writes."""
CYCLE_PAGES = 4_000
"""Pages of the write-ahead log after which it is copied into the database and begun anew."""
_CYCLE_BYTES = CYCLE_PAGES * (4096 + 24)


class Connections:
    """Makes connections to one file; each is used by one thread at a time.

    WAL, so that readers and the writer do not wait for each other. Never memory-mapped: a mapped file turns an I/O
    error into a signal, and has made damage worse where there was some.
    """

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self._module = driver()
        bind_as_it_is(self._module)
        self._path = path
        self._synchronous = synchronous
        self._engine = create_engine(
            "sqlite://", module=self._module, creator=self._connect, poolclass=NullPool
        )

    @property
    def errors(self) -> type[Exception]:
        """The base of all that the library raises."""
        error: type[Exception] = self._module.Error
        return error

    def _connect(self) -> object:
        return self._module.connect(
            str(self._path),
            isolation_level=None,  # transactions begin and end where this code says so
            check_same_thread=False,
            cached_statements=256,
        )

    @contextmanager
    def core(self) -> Iterator[Connection]:
        """A writing connection for Core, without foreign keys: for migrations, which rebuild tables."""
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.exec_driver_sql(f"PRAGMA synchronous = {self._synchronous}")
            yield connection
        finally:
            connection.invalidate()
            connection.close()

    def back_up(self, source: SqliteLink, target: Path) -> None:
        """Copy what `source` sees now to the file `target`, as a database without write-ahead log."""
        copy = self._module.connect(str(target), isolation_level=None)
        try:
            source.raw.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()

    def make_private(self) -> None:
        """The file is readable by its user alone, wherever it lies; SQLite gives the files beside it the same mode.

        What a link leads to is left as it is. A file that cannot be opened is left to SQLite, which says why.
        """
        with suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o600)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
                    os.fchmod(descriptor, 0o600)
            finally:
                os.close(descriptor)

    def keep_room(self, link: SqliteLink, spare: int) -> None:
        """Take the disk space of the write-ahead log now, with `spare` bytes more than one cycle of it needs.

        So there is still something to write into when others have filled the disk: leases are renewed and runs
        cancelled. Where the file system gives no space in advance, or none is left, nothing is changed.
        """
        if not hasattr(os, "posix_fallocate"):
            return  # macOS
        link.raw.execute("SELECT 1 FROM sqlite_schema").fetchone()  # makes the file
        with suppress(OSError):
            descriptor = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
            try:
                os.posix_fallocate(descriptor, 0, _CYCLE_BYTES + spare)
            finally:
                os.close(descriptor)

    def open(self, *, writing: bool) -> SqliteLink:
        """A connection with its settings; raises the library's error when the file cannot be opened."""
        link = SqliteLink(self._engine.connect(), self.errors)
        try:
            link.script(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            link.script("PRAGMA mmap_size = 0")
            link.script("PRAGMA temp_store = MEMORY")
            if writing:
                link.script("PRAGMA journal_mode = WAL")
                link.script(f"PRAGMA synchronous = {self._synchronous}")
                link.script("PRAGMA foreign_keys = ON")
                link.script("PRAGMA cache_size = -8192")
                link.script(f"PRAGMA wal_autocheckpoint = {CYCLE_PAGES}")
                link.script("PRAGMA journal_size_limit = 67108864")
            else:
                link.script("PRAGMA query_only = ON")
        except BaseException:
            link.close()
            raise
        return link
