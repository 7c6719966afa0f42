"""A connection to Postgres, as the tables use it; and what Core needs to know to write for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import psycopg
from psycopg.pq import Format, TransactionStatus
from sqlalchemy import Connection, Executable
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError

from overnight.errors import OvernightError
from overnight.stores.sql.postgres_size import live_bytes
from overnight.stores.sql.statements import DialectName, Form, Link, Row, Statement

NUL, SHOWN_NUL = "\0", "\N{REPLACEMENT CHARACTER}"
"""Postgres keeps no NUL in a text. Whoever writes or asks for one gets the sign for what cannot be shown."""


class _Ddl(PGDDLCompiler):
    """Texts are compared byte by byte, as on SQLite, whatever language the database speaks."""

    def get_column_specification(self, column: Any, **options: Any) -> str:
        text: str = super().get_column_specification(column, **options)  # type: ignore[no-untyped-call]
        name, _, rest = text.partition(" ")
        kind, separator, more = rest.partition(" ")
        order = ' COLLATE "C"' if kind == "TEXT" else ""
        return f"{name} {kind}{order}{separator}{more}"


def new_dialect(paramstyle: str) -> PGDialect_psycopg:
    """How Core writes for Postgres."""
    made = PGDialect_psycopg(paramstyle=paramstyle, use_native_hstore=False)  # type: ignore[no-untyped-call]
    made.ddl_compiler = _Ddl
    return made


DIALECT: Final = new_dialect("numeric_dollar")


class PostgresLink(Link):
    """See `Link`. The connection must be in autocommit mode: transactions begin and end where our code says so."""

    __slots__ = ("_core", "_cursor", "_deferring", "_pipeline", "_quiet", "_unconfirmed", "raw")

    dialect: DialectName = "postgres"
    defers = True

    def __init__(self, core: Connection) -> None:
        self._core = core
        raw: Any = core.connection.driver_connection
        self.raw: psycopg.Connection[Row] = raw
        self._cursor: psycopg.RawCursor[Row] = psycopg.RawCursor(self.raw)
        self._cursor.format = Format.BINARY
        self._quiet: psycopg.RawCursor[Row] = psycopg.RawCursor(self.raw)
        """For whatever nobody reads: its results may come in behind those of others."""
        self._pipeline: psycopg.Pipeline | None = None
        self._deferring = ExitStack()
        self._unconfirmed: list[tuple[psycopg.RawCursor[Row], OvernightError]] = []

    def _execute(self, form: Form, values: dict[str, object]) -> psycopg.RawCursor[Row]:
        given = form.bind(values)
        cursor = self._cursor.execute(form.sql, [*map(plain, given)])
        self._close_message()
        return cursor

    def run(self, statement: Statement, /, **values: object) -> int:
        """See `Link`."""
        cursor = self._execute(statement.postgres, values)
        if self._pipeline is not None:
            self._pipeline.sync()
        return cursor.rowcount

    def tell(self, statement: Statement, /, **values: object) -> None:
        """See `Link`."""
        given = statement.postgres.bind(values)
        self._quiet.execute(statement.postgres.sql, [*map(plain, given)])
        self._close_message()

    def _close_message(self) -> None:
        """Let the server answer for itself, without waiting for it: until it may, it does not count the session as one
        that stands still, and a process that was stopped in the middle of a unit would keep all others from writing.
        """
        if self._pipeline is not None:
            self._pipeline._enqueue_sync()  # noqa: SLF001 -- there is only one that waits
            self.raw.wait(self._pipeline._communicate_gen())  # noqa: SLF001

    def change_one(self, statement: Statement, missing: OvernightError, /, **values: object) -> None:
        """See `Link`."""
        if self._pipeline is None:
            super().change_one(statement, missing, **values)
            return
        cursor: psycopg.RawCursor[Row] = psycopg.RawCursor(self.raw)
        cursor.execute(statement.postgres.sql, [*map(plain, statement.postgres.bind(values))])
        self._close_message()
        self._unconfirmed.append((cursor, missing))

    def confirm(self) -> None:
        """See `Link`."""
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        if unconfirmed and self._pipeline is not None:
            self._pipeline.sync()
        for cursor, missing in unconfirmed:
            if cursor.rowcount != 1:
                raise missing

    def defer(self) -> None:
        """See `Link`: libpq's pipeline mode, which saves the round trips of what nobody reads."""
        self._pipeline = self._deferring.enter_context(self.raw.pipeline())

    def settle(self) -> None:
        """See `Link`."""
        if self._pipeline is None:
            return
        self._pipeline = None
        self._unconfirmed.clear()
        self._deferring.close()
        if self.raw.pgconn.transaction_status == TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction("what was told before has failed")

    def run_many(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """See `Link`."""
        given = [[*map(plain, row)] for row in rows]
        if given:
            self._quiet.executemany(statement.postgres.sql, given)
            self._close_message()

    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """See `Link`."""
        return self._execute(statement.postgres, values).fetchone()

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """See `Link`."""
        return self._execute(statement.postgres, values).fetchall()

    def select(self, clause: Executable) -> list[Row]:
        """See `Link`."""
        deferring, unconfirmed = self._pipeline is not None, self._unconfirmed
        self._unconfirmed = []
        self.settle()  # Core asks for what a pipeline cannot tell yet
        try:
            found = [tuple(row) for row in self._core.execute(clause)]
        except DBAPIError as error:
            raise error.orig or error from None
        if deferring:
            self.defer()
            self._unconfirmed = unconfirmed
        return found

    def rows(self, sql: str, *values: object) -> list[Row]:
        """See `Link`; parameters are `$1`, `$2` …"""
        cursor = self._cursor.execute(sql, values)
        self._close_message()
        return cursor.fetchall()

    def script(self, sql: str) -> None:
        """See `Link`. Several statements may stand in one text.

        Raises psycopg.OperationalError when a COMMIT has become a rollback, which Postgres says without an error.
        """
        if sql.startswith("ROLLBACK"):
            self._unconfirmed.clear()
        if self._pipeline is not None:
            self._quiet.execute(sql)
            self._close_message()
            return
        cursor = self.raw.execute(sql, prepare=False)
        if sql == "COMMIT" and cursor.statusmessage != "COMMIT":
            raise psycopg.OperationalError(f"the commit ended as {cursor.statusmessage}")

    def size_bytes(self) -> int:
        """See `Link`."""
        return live_bytes(self)

    def close(self) -> None:
        """See `Link`."""
        self._cursor.close()
        self._quiet.close()
        self._core.invalidate()
        self._core.close()
        self.raw.close()


def plain(value: object) -> object:
    """A parameter as it is sent.

    Numbers go as text without a type, for the statement says the types: so a statement is prepared once, whether a
    value is there or NULL.
    """
    if isinstance(value, str):
        return value.replace(NUL, SHOWN_NUL) if NUL in value else value
    if isinstance(value, int):
        return str(int(value))
    return value
