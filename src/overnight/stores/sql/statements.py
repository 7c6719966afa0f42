"""Statements written with Core, compiled once, executed on the DB-API cursor; and the connection that runs them.

Core's own execution costs about as much as SQLite itself on small statements, so what is fixed bypasses it. What is
put together for each call (filters) goes through Core, which caches by shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import BindParameter, Connection, Executable, FromClause, bindparam, func
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    import sqlite3  # for its types alone: two SQLite libraries must never open the same file

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")

Row = tuple[Any, ...]


class Statement:
    """One statement as SQL text and the order of its parameters."""

    __slots__ = ("_fixed", "_names", "sql")

    def __init__(self, clause: ClauseElement) -> None:
        compiled = cast("SQLCompiler", clause.compile(dialect=_DIALECT))
        self.sql = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def bind(self, values: Mapping[str, object]) -> list[object]:
        """The parameters in the order of the text. Raises KeyError for one that is missing."""
        fixed = self._fixed
        return [values[name] if name in values else fixed[name] for name in self._names]


def key(name: str) -> BindParameter[Any]:
    """A parameter of a WHERE clause; its name differs from every column's, which Core keeps for SET and VALUES."""
    return bindparam(f"key_{name}")


def elements(parameter: str) -> FromClause:
    """The rows (`key`, `value`) of a JSON array or object that is bound as one parameter."""
    return func.json_each(bindparam(parameter)).table_valued("key", "value")


def ddl(clause: ClauseElement) -> str:
    """The text of a statement that makes or removes tables."""
    return str(clause.compile(dialect=_DIALECT))


class Link:
    """One connection to the database, for one thread at a time."""

    __slots__ = ("_core", "_cursor", "raw")

    def __init__(self, core: Connection) -> None:
        self._core = core
        self.raw: sqlite3.Connection = cast("Any", core.connection.driver_connection)
        self._cursor: sqlite3.Cursor = self.raw.cursor()

    def run(self, statement: Statement, /, **values: object) -> int:
        """Execute; how many rows were changed."""
        return self._cursor.execute(statement.sql, statement.bind(values)).rowcount

    def run_many(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """Execute for each row of parameters, which come in the order of the text."""
        self._cursor.executemany(statement.sql, rows)

    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """The first row, or None."""
        cursor = self._cursor.execute(statement.sql, statement.bind(values))
        rows = cursor.fetchall()
        return rows[0] if rows else None

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """Every row."""
        return self._cursor.execute(statement.sql, statement.bind(values)).fetchall()

    def select(self, clause: Executable) -> list[Row]:
        """Every row of a statement that was put together for this call."""
        return [tuple(row) for row in self._core.execute(clause)]

    def count(self, table: str) -> int:
        """How many rows a table has."""
        quoted = table.replace('"', '""')
        return int(self.raw.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 -- quoted

    def script(self, sql: str) -> None:
        """Transaction control and pragmas."""
        self._cursor.execute(sql)

    def close(self) -> None:
        """Close both the Core side and the connection."""
        self._cursor.close()
        self._core.invalidate()
        self._core.close()
        self.raw.close()
