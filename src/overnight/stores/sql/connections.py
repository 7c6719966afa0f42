"""Opening connections to one SQLite file the way that keeps its promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from overnight.stores.sql.library import driver
from overnight.stores.sql.statements import Link

Synchronous = Literal["FULL", "NORMAL"]
BUSY_TIMEOUT_MS = 5_000
"""How long a statement waits for another process (`overnight db`, a backup tool) that writes."""


class Connections:
    """Makes connections to one file; each is used by one thread at a time.

    WAL, so that readers and the writer do not wait for each other. Never memory-mapped: a mapped file turns an I/O
    error into a signal, and has made damage worse where there was some.
    """

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self._module = driver()
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

    def back_up(self, source: Link, target: Path) -> None:
        """Copy what `source` sees now to the file `target`, as a database without write-ahead log."""
        copy = self._module.connect(str(target), isolation_level=None)
        try:
            source.raw.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()

    def open(self, *, writing: bool) -> Link:
        """A connection with its settings; raises the library's error when the file cannot be opened."""
        link = Link(self._engine.connect())
        try:
            link.script(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            link.script("PRAGMA mmap_size = 0")
            link.script("PRAGMA temp_store = MEMORY")
            if writing:
                link.script("PRAGMA journal_mode = WAL")
                link.script(f"PRAGMA synchronous = {self._synchronous}")
                link.script("PRAGMA foreign_keys = ON")
                link.script("PRAGMA cache_size = -8192")
                link.script("PRAGMA wal_autocheckpoint = 4000")
                link.script("PRAGMA journal_size_limit = 67108864")
            else:
                link.script("PRAGMA query_only = ON")
        except BaseException:
            link.close()
            raise
        return link
