"""A connection to Postgres, as the tables use it; and what Core needs to know to write for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final

import psycopg
from psycopg.pq import Format
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection, Executable
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError

from overnight.errors import OvernightError
from overnight.stores.sql.postgres_size import live_bytes
from overnight.stores.sql.postgres_watch import Watched
from overnight.stores.sql.postgres_wire import Wire, parameters
from overnight.stores.sql.reach import is_writing
from overnight.stores.sql.statements import DialectName, Form, Link, Row, Statement, Unreached


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
    """See `Link`. The connection must be in autocommit mode: transactions begin and end where our code says so.

    While it defers, whatever is only told goes with the next statement that is waited for, at the latest with the
    commit: one way there and back. So errors come late, and any may be another unit's.
    """

    __slots__ = ("_ahead", "_core", "_cursor", "_wire", "changed", "raw", "unheard")

    dialect: DialectName = "postgres"
    doubtful = True

    def __init__(self, core: Connection) -> None:
        super().__init__()
        self._core = core
        raw: Any = core.connection.driver_connection
        self.raw: Watched = raw
        self._wire = Wire(raw)
        self._cursor: psycopg.RawCursor[Row] = psycopg.RawCursor(self.raw)
        self._cursor.format = Format.BINARY
        self._ahead: tuple[Statement, list[Row]] | None = None
        self.changed = False
        """Whether the transaction has perhaps changed anything."""
        self.unheard = 0
        """How many statements might have, of which it will be heard later."""

    def by_itself(self) -> Watched:
        """The connection, for the library's own calls; until the next call of ours."""
        self.make_way(None, writes=True)
        self._wire.rest()
        self.changed = True
        return self.raw

    def begin(self, words: Sequence[str], ahead: Statement) -> None:
        """Begin a transaction, and ask what it is going to ask first: `ahead`, of which `one` knows the answer then."""
        for each in words:
            self._wire.send(each)
        form = ahead.postgres
        self._wire.send(form.sql, parameters(form.bind({})), form.bytes_at)
        self._ahead = ahead, self._wire.rows(form.sql, self._wire.collect()[-1])
        self.changed, self.unheard = False, 0

    def _send(self, form: Form, values: Mapping[str, object]) -> None:
        if self.put_off.tables or self._savepoint == "due":
            self.make_way(form.reach, writes=form.writes)
        self._wire.send(form.sql, parameters(form.bind(values)), form.bytes_at)

    def _execute(self, form: Form, values: Mapping[str, object]) -> PGresult:
        self._send(form, values)
        found = self._wire.collect()[-1]
        if form.writes and (found.command_tuples or found.ntuples):
            self.changed = True
        return found

    def run(self, statement: Statement, /, **values: object) -> int:
        """See `Link`."""
        return self._execute(statement.postgres, values).command_tuples or 0

    def tell(self, statement: Statement, /, **values: object) -> None:
        """See `Link`."""
        if not self._deferring:
            self.run(statement, **values)
            return
        self._send(statement.postgres, values)
        self.changed = True

    def later(self, statement: Statement, then: Callable[[list[Row]], None], /, **values: object) -> None:
        """See `Link`."""
        if not self._deferring:
            super().later(statement, then, **values)
            return
        form = statement.postgres
        self.make_way(form.reach, writes=form.writes)
        self.unheard += form.writes

        def hear(result: PGresult) -> None:
            self.unheard -= form.writes
            self.changed |= form.writes and bool(result.command_tuples)
            then(self._wire.rows(form.sql, result))

        self._wire.send(form.sql, parameters(form.bind(values)), form.bytes_at, then=hear)

    def change_one(self, statement: Statement, missing: OvernightError, /, **values: object) -> None:
        """See `Link`. The database itself refuses to have changed none."""
        if not self._deferring:
            super().change_one(statement, missing, **values)
            return
        form = statement.postgres
        self.make_way(form.reach, writes=True)
        self._wire.send(form.surely(), parameters(form.bind(values)), form.bytes_at)
        self.changed = True

    def run_many(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """See `Link`."""
        form = statement.postgres
        self.make_way(form.reach, writes=True)
        for row in rows:
            self._wire.send(form.sql, parameters(row), form.bytes_at)
            self.changed = True
        if not self._deferring:
            self._wire.collect()

    def _insert(self, statement: Statement, rows: Sequence[Sequence[object]]) -> None:
        form, n = statement.postgres, 0
        while n < len(rows):
            many = next(size for size in _SIZES if size <= len(rows) - n)
            values = chain.from_iterable(rows[n : n + many])
            self._wire.send(form.for_rows(many), parameters(values), form.bytes_at * many)
            n += many
        self.changed = True

    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """See `Link`."""
        if self._ahead is not None and self._ahead[0] is statement:
            (_, rows), self._ahead = self._ahead, None
        else:
            rows = self.all(statement, **values)
        return rows[0] if rows else None

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """See `Link`."""
        form = statement.postgres
        return self._wire.rows(form.sql, self._execute(form, values))

    def select(self, clause: Executable) -> list[Row]:
        """See `Link`."""
        self.make_way(None, writes=False)
        self._wire.rest()
        try:
            return [tuple(row) for row in self._core.execute(clause)]
        except DBAPIError as error:
            raise error.orig or error from None

    def rows(self, sql: str, *values: object) -> list[Row]:
        """See `Link`; parameters are `$1`, `$2` …"""
        self.make_way(None, writes=is_writing(sql))
        self._wire.rest()
        self.changed |= is_writing(sql)
        return self._cursor.execute(sql, values).fetchall()

    def script(self, sql: str) -> None:
        """See `Link`. Several statements may stand in one text.

        Raises psycopg.OperationalError when a COMMIT has become a rollback, which Postgres says without an error.
        """
        if not sql.startswith(_CONTROL) or ";" in sql:
            self._wire.rest()
            self.changed = True
            self.raw.execute(sql, prepare=False)
            return
        self._wire.send(sql)
        if not self._deferring:
            said = self._wire.collect()[-1].command_status
            if sql == "COMMIT" and said != b"COMMIT":
                raise psycopg.OperationalError(f"the commit ended as {said!r}")

    def commit(self) -> None:
        """See `Link`."""
        self.make_way(None, writes=False)
        self._over()
        try:
            self.script("COMMIT")
        except psycopg.Error as error:
            if error.sqlstate is not None and self._wire.behind:
                raise Unreached from error
            raise

    def abandon(self) -> None:
        """See `Link`."""
        with suppress(psycopg.Error):  # what was told may have failed: it is undone all the same
            self._wire.collect()
        super().abandon()

    def _over(self) -> None:
        super()._over()
        self._ahead = None

    def open_snapshot(self) -> None:
        """See `Link`. Nobody waits for it."""
        self._wire.send("BEGIN")

    def close_snapshot(self) -> None:
        """See `Link`. Nobody waits for it: what becomes of it shows with the next query."""
        self._wire.send("ROLLBACK")
        self._wire.close()

    def size_bytes(self) -> int:
        """See `Link`."""
        return live_bytes(self)

    def close(self) -> None:
        """See `Link`."""
        self._cursor.close()
        self._core.invalidate()
        self._core.close()
        self.raw.close()


_CONTROL: Final = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
_SIZES: Final = (16, 4, 2, 1)
"""How many rows are inserted at once: few, as each is a statement of its own to the server."""
