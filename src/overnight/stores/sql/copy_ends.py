"""Where copies of a whole database begin and end: a SQLite file, or a Postgres database."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import Table, insert

from overnight.clock import Clock
from overnight.errors import Conflict, NotFound, UnsafeDatabase
from overnight.stores.sql import backups, copying, migrate, postgres_schema
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.copying import Proof, Tell
from overnight.stores.sql.lock import DataLock
from overnight.stores.sql.postgres_admin import expect_alone, explained
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.stores.sql.sqlite_link import SqliteLink
from overnight.stores.sql.statements import Statement

_NO_LIMITS = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"


def to_postgres(path: Path, url: str, clock: Clock, tell: Tell, *, locking: bool = True) -> Proof:
    """Copy the SQLite file at `path` into the empty Postgres database at `url`.

    `locking`: no server may work on the file meanwhile. Raises NotFound, DataInUse, Conflict when the target is not
    empty, SchemaOutdated or UnsafeDatabase for schemas that do not fit, StartRefused when the server cannot be used.
    Whatever ends it early leaves a target that no server will start on.
    """
    connections = PostgresConnections(url)
    with (
        _file(path, clock, locking=locking) as source,
        explained(connections),
        _database(connections) as target,
    ):
        proof = copying.copy(source, target, tell)
        target.finish()
        return proof


def to_sqlite(url: str, path: Path, tell: Tell, *, live: bool = False) -> Proof:
    """Copy the Postgres database at `url` into a new SQLite file at `path`, which appears only when it is complete.

    `live`: servers may go on working meanwhile; the copy is of one moment. Raises DataInUse, Conflict when there is a
    file, and as `to_postgres`.
    """
    if path.exists():
        raise Conflict(f"{path} is there already", mend="name another file")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connections = PostgresConnections(url)
    with _beside(path) as fresh:
        with explained(connections), _snapshot(connections, live=live) as source:
            target = _NewFile(fresh)
            try:
                proof = copying.copy(source, target, tell)
                target.finish()
            finally:
                target.link.close()
        backups.sync(fresh)
        try:
            os.link(fresh, path)
        except FileExistsError:
            raise Conflict(f"{path} has appeared meanwhile", mend="name another file") from None
        backups.sync(path.parent)
    return proof


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, gone at the end; nobody else writes to it. Raises Conflict where somebody does."""
    fresh = path.with_name(path.name + ".copying")
    descriptor = None
    while descriptor is None:
        descriptor = _taken(fresh)
    try:
        for ending in ("-wal", "-shm"):
            fresh.with_name(fresh.name + ending).unlink(missing_ok=True)
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(fresh: Path) -> int | None:
    """The file, empty and locked; None when what a copy that was killed has left had to be removed first."""
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        is_there = fresh.exists() and os.path.samestat(found, fresh.stat())
        if is_there and not found.st_size:
            held, descriptor = descriptor, -1
            return held
        if is_there:  # whoever replaces what we have locked must have locked it
            fresh.unlink()
    except BlockingIOError:
        raise Conflict(f"another copy is being written to {fresh}", mend="wait until it is done") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


@contextmanager
def _file(path: Path, clock: Clock, *, locking: bool) -> Iterator[SqliteLink]:
    if not path.is_file():
        raise NotFound(f"there is no database at {path}", mend="look whether the name is right")
    lock = DataLock(path.parent, clock) if locking else None
    if lock is not None:
        lock.acquire()
    try:
        connections = Connections(path, "FULL")
        link = connections.open(writing=False)
        try:
            try:
                found = migrate.revision(link)
            except connections.errors as error:
                raise UnsafeDatabase(
                    f"{path} cannot be read: {error}",
                    mend="name a database, or a copy made by: overnight db backup",
                ) from None
            if found != migrate.HEAD:
                raise UnsafeDatabase(
                    f"{path} has schema {found}, not {migrate.HEAD}", mend="overnight db upgrade"
                )
            link.script("BEGIN")
            yield link
        finally:
            link.close()
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def _snapshot(connections: PostgresConnections, *, live: bool) -> Iterator[PostgresLink]:
    link = connections.open(writing=False)
    try:
        link.script(_NO_LIMITS)
        if not live:
            expect_alone(link, connections)
        link.script("BEGIN")
        postgres_schema.check(link)
        if migrate.revision(link) != migrate.HEAD:
            raise UnsafeDatabase("the database has a newer schema", mend="use the newer Overnight to copy it")
        yield link
    finally:
        link.close()


@contextmanager
def _database(connections: PostgresConnections) -> Iterator[_Database]:
    link = connections.open(writing=True)
    try:
        link.script(_NO_LIMITS)
        expect_alone(link, connections)
        link.script(postgres_schema.BEGIN)
        expect_alone(link, connections)  # and whoever comes now waits, and finds that a copy has begun
        if migrate.revision(link) is None:
            migrate.create(link)
        else:
            postgres_schema.check(link)
        if not copying.is_empty(link):
            raise Conflict(f"{connections.address} is not empty", mend="copy into a database of its own")
        link.script(f"INSERT INTO installation (key, value) VALUES ('{copying.UNFINISHED}', 'now')")  # noqa: S608
        target = _Database(link)
        target.commit()
        yield target
    finally:
        link.close()


class _Database:
    """See `copying.Target`."""

    def __init__(self, link: PostgresLink) -> None:
        self.link = link

    def fill(self, table: Table, rows: list[list[object]]) -> None:
        """See `Target`."""
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        with (
            psycopg.Cursor(self.link.by_itself()) as cursor,
            cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as stream,
        ):
            for row in rows:
                stream.write_row(row)

    def count_on(self, table: str, last: int) -> None:
        """See `Target`."""
        self.link.rows(
            "SELECT setval(pg_get_serial_sequence($1, 'pk'), $2::bigint, $3::bigint > 0)",
            f'"{table}"', str(max(last, 1)), str(last),
        )  # fmt: skip

    def commit(self) -> None:
        """See `Target`."""
        self.link.script("COMMIT")
        self.link.script(postgres_schema.BEGIN)

    def finish(self) -> None:
        """From now on servers may start on it."""
        self.link.script(f"DELETE FROM installation WHERE key = '{copying.UNFINISHED}'")  # noqa: S608 -- ours
        self.link.script("COMMIT")
        self.link.script("ANALYZE")


class _NewFile:
    """See `copying.Target`."""

    def __init__(self, path: Path) -> None:
        connections = Connections(path, "NORMAL")
        connections.make_private()
        self.link = connections.open(writing=True)
        self.link.script("BEGIN IMMEDIATE")
        migrate.create(self.link)
        self._statements: dict[str, Statement] = {}

    def fill(self, table: Table, rows: list[list[object]]) -> None:
        """See `Target`."""
        statement = self._statements.setdefault(table.name, Statement(insert(table)))
        self.link.run_many(statement, rows)

    def count_on(self, table: str, last: int) -> None:
        """See `Target`."""
        self.link.rows("DELETE FROM sqlite_sequence WHERE name = ?", table)
        self.link.rows("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", table, last)

    def commit(self) -> None:
        """See `Target`."""
        self.link.script("COMMIT")
        self.link.script("BEGIN IMMEDIATE")

    def finish(self) -> None:
        """As one file, without a write-ahead log beside it."""
        self.link.script("COMMIT")
        self.link.script("PRAGMA journal_mode = DELETE")
