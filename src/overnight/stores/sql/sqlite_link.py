"""A connection to SQLite, as the tables use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Executable

from overnight.stores.sql.statements import DialectName, Link, Row, Statement

if TYPE_CHECKING:
    import sqlite3  # for its types alone: two SQLite libraries must never open the same file


class SqliteLink(Link):
    """See `Link`."""

    __slots__ = ("_core", "_cursor", "raw")

    dialect: DialectName = "sqlite"

    def __init__(self, core: Connection) -> None:
        self._core = core
        self.raw: sqlite3.Connection = cast("Any", core.connection.driver_connection)
        self._cursor: sqlite3.Cursor = self.raw.cursor()

    def run(self, statement: Statement, /, **values: object) -> int:
        """See `Link`."""
        form = statement.sqlite
        return self._cursor.execute(form.sql, form.bind(values)).rowcount

    def run_many(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """See `Link`."""
        self._cursor.executemany(statement.sqlite.sql, rows)

    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """See `Link`."""
        form = statement.sqlite
        rows = self._cursor.execute(form.sql, form.bind(values)).fetchall()
        return rows[0] if rows else None

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """See `Link`."""
        form = statement.sqlite
        return self._cursor.execute(form.sql, form.bind(values)).fetchall()

    def select(self, clause: Executable) -> list[Row]:
        """See `Link`."""
        return [tuple(row) for row in self._core.execute(clause)]

    def rows(self, sql: str, *values: object) -> list[Row]:
        """See `Link`."""
        return self.raw.execute(sql, values).fetchall()

    def script(self, sql: str) -> None:
        """See `Link`."""
        self._cursor.execute(sql)

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
