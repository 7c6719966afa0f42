"""A connection to SQLite, as the tables use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Executable

from overnight.stores.sql.reach import is_writing
from overnight.stores.sql.statements import DialectName, Link, Row, Statement, Unreached

if TYPE_CHECKING:
    import sqlite3  # for its types alone: two SQLite libraries must never open the same file


class SqliteLink(Link):
    """See `Link`."""

    __slots__ = ("_core", "_cursor", "_errors", "raw")

    dialect: DialectName = "sqlite"

    def __init__(self, core: Connection, errors: type[Exception]) -> None:
        super().__init__()
        self._errors = errors
        self._core = core
        self.raw: sqlite3.Connection = cast("Any", core.connection.driver_connection)
        self._cursor: sqlite3.Cursor = self.raw.cursor()

    def _execute(self, statement: Statement, values: dict[str, object]) -> sqlite3.Cursor:
        form = statement.sqlite
        if self.put_off.tables or self._savepoint == "due":
            self.make_way(form.reach, writes=form.writes)
        return self._cursor.execute(form.sql, form.bind(values))

    def run(self, statement: Statement, /, **values: object) -> int:
        """See `Link`."""
        return self._execute(statement, values).rowcount

    def run_many(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """See `Link`."""
        form = statement.sqlite
        self.make_way(form.reach, writes=True)
        self._cursor.executemany(form.sql, rows)

    def _insert(self, statement: Statement, rows: Sequence[Sequence[object]]) -> None:
        try:
            self._cursor.executemany(statement.sqlite.sql, rows)
        except self._errors as error:
            raise Unreached from error

    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """See `Link`."""
        rows = self._execute(statement, values).fetchall()
        return rows[0] if rows else None

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """See `Link`."""
        return self._execute(statement, values).fetchall()

    def select(self, clause: Executable) -> list[Row]:
        """See `Link`."""
        self.make_way(None, writes=False)
        return [tuple(row) for row in self._core.execute(clause)]

    def rows(self, sql: str, *values: object) -> list[Row]:
        """See `Link`."""
        self.make_way(None, writes=is_writing(sql))
        return self.raw.execute(sql, values).fetchall()

    def script(self, sql: str) -> None:
        """See `Link`."""
        self._cursor.execute(sql)

    def commit(self) -> None:
        """See `Link`."""
        self.make_way(None, writes=False)
        self._over()
        self.script("COMMIT")

    def undo(self) -> None:
        """See `Link`. Some failures end the whole transaction, which the library does not say."""
        if not self.raw.in_transaction:
            self._savepoint = "set"  # there is none, so the library raises its error
        super().undo()

    def size_bytes(self) -> int:
        """See `Link`."""
        size, pages, free = (
            self.rows(f"PRAGMA {name}")[0][0] for name in ("page_size", "page_count", "freelist_count")
        )
        return int(size * (pages - free))

    def close(self) -> None:
        """See `Link`."""
        self._cursor.close()
        self._core.invalidate()
        self._core.close()
        self.raw.close()
