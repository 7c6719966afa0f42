"""Statements written with Core, compiled once for each database, executed on the DB-API cursor; and what runs them.

Core's own execution costs about as much as SQLite itself on small statements, so what is fixed bypasses it. What is
put together for each call (filters) goes through Core, which caches by shape.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from operator import itemgetter
from typing import Any, Final, Literal, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    FromClause,
    Insert,
    Select,
    bindparam,
    literal_column,
    select,
)
from sqlalchemy import cast as as_type
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import BigInteger, Integer, LargeBinary, Text, TypeEngine

from overnight.errors import OvernightError
from overnight.stores.sql.put_off import PutOff, Written
from overnight.stores.sql.reach import is_writing, reach

DialectName = Literal["sqlite", "postgres"]
Row = tuple[Any, ...]
_PARAMETER: Final = re.compile(r"\$(\d+)")

_SQLITE: Final = sqlite.dialect(paramstyle="qmark")
_WHOLE: Final = BigInteger().with_variant(Integer(), "sqlite")


class Form:
    """A statement in the words of one database, and the order of its parameters."""

    __slots__ = ("_fixed", "_many", "_pick", "bytes_at", "names", "reach", "sql", "writes")

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = cast("SQLCompiler", clause.compile(dialect=dialect))
        self.sql = str(compiled)
        self.names = tuple(compiled.positiontup or ())
        bytes_at = tuple(isinstance(compiled.binds[name].type, LargeBinary) for name in self.names)
        self.bytes_at: Final = bytes_at if any(bytes_at) else ()
        """Which parameters are bytes; empty where none is."""
        self.writes: Final = is_writing(self.sql)
        self.reach: Final = reach(self.sql)
        """The tables whose rows it may ask for."""
        self._many = {1: self.sql}
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._pick: Callable[[Mapping[str, object]], tuple[object, ...]] | None = (
            itemgetter(*self.names) if len(self.names) > 1 else None
        )

    def bind(self, values: Mapping[str, object]) -> Sequence[object]:
        """The parameters in the order of the text. Raises KeyError for one that is missing."""
        if self._fixed:
            values = {**self._fixed, **values}
        return self._pick(values) if self._pick is not None else [values[name] for name in self.names]

    def for_rows(self, many: int) -> str:
        """The text that inserts so many rows, where this one inserts one; in Postgres's words, whose parameters are
        numbered.
        """
        if many not in self._many:
            head, row = self.sql.split(" VALUES ")
            width = len(self.names)
            self._many[many] = f"{head} VALUES " + ", ".join(
                _PARAMETER.sub(lambda found, before=n * width: f"${int(found[1]) + before}", row)  # type: ignore[misc]
                for n in range(many)
            )
        return self._many[many]

    def surely(self) -> str:
        """The text that changes rows, so that the database refuses to have changed none."""
        if 0 not in self._many:
            self._many[0] = f"WITH changed AS ({self.sql} RETURNING 1) SELECT 1 / count(*) FROM changed"  # noqa: S608
        return self._many[0]


class Statement:
    """One statement; its form for a database is made when that database first asks for it."""

    __slots__ = ("_clause", "postgres", "sqlite", "table")

    postgres: Form
    sqlite: Form

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self.table: Final[str] = clause.table.name if isinstance(clause, Insert) else ""
        """Into which it inserts."""

    def __getattr__(self, name: str) -> Form:
        """Called once for each database: a slot that is filled answers by itself."""
        if name not in ("postgres", "sqlite"):
            raise AttributeError(name)
        form = Form(self._clause, dialect(cast("DialectName", name)))
        setattr(self, name, form)
        return form

    @property
    def sql(self) -> str:
        """As SQLite is told it."""
        return self.sqlite.sql


def dialect(name: DialectName) -> Dialect:
    """What Core writes for; Postgres's is loaded only where there is a Postgres."""
    if name == "sqlite":
        return _SQLITE
    from overnight.stores.sql.postgres_link import DIALECT  # noqa: PLC0415 -- see above

    return DIALECT


def key(name: str, type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = None) -> BindParameter[Any]:
    """A parameter of a WHERE clause; its name differs from every column's, which Core keeps for SET and VALUES.

    Where it is compared with a column it has that column's type. Where it stands alone (`IS NULL`) Postgres cannot
    tell, so the type is said.
    """
    return bindparam(f"key_{name}", type_=type_)


def text_key(name: str) -> BindParameter[Any]:
    """The same for a text that may be NULL, which asks for every value."""
    return key(name, Text())


class _Elements(GenericFunction[Any]):
    """The elements of a JSON array."""

    name = "json_each"
    identifier = "overnight_elements"
    inherit_cache = True


class _Members(GenericFunction[Any]):
    """The members of a JSON object."""

    name = "json_each"
    identifier = "overnight_members"
    inherit_cache = True


@compiles(_Elements, "postgresql")
def _elements(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    (given,) = element.clauses
    told = compiler.process(given, **options)
    return f"json_array_elements_text(replace(CAST({told} AS TEXT), '\\u0000', '\\ufffd')::json)"


@compiles(_Members, "postgresql")
def _members(element: _Members, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each_text{compiler.function_argspec(element, **options)}"


def elements(parameter: str) -> FromClause:
    """The elements (`value`, text) of a JSON array of texts that is bound as one parameter."""
    return _Elements(bindparam(parameter)).table_valued("value")


def numbers(parameter: str) -> FromClause:
    """The rows (`key`, `value`) of a JSON object from whole numbers to whole numbers, bound as one parameter."""
    given = _Members(bindparam(parameter)).table_valued("key", "value")
    return (
        select(as_type(given.c.key, _WHOLE).label("key"), as_type(given.c.value, _WHOLE).label("value"))
        .select_from(given)
        .subquery()
    )


def has_any(query: Select[Any]) -> ColumnElement[bool]:
    """Whether the query has a row at all. It should say the order of the index that it is to go by.

    Not EXISTS, which Postgres may answer by reading the whole table once, for all rows around it.
    """
    return query.limit(literal_column("1")).scalar_subquery().is_not(None)


def ddl(clause: ClauseElement, name: DialectName = "sqlite") -> str:
    """The text of a statement that makes or removes tables."""
    return str(clause.compile(dialect=dialect(name)))


class Unreached(Exception):
    """What was asked for was not come to, as something that had been put off has failed, perhaps another unit's. So
    nothing was committed. Raised from its error.
    """


class Link(ABC):
    """One connection to the database, for one thread at a time; and the units of the transaction that it is in.

    A unit that may be undone alone has its savepoint set before the first of its statements that changes anything.
    """

    __slots__ = ("_deferring", "_savepoint", "put_off")

    dialect: DialectName
    doubtful: bool = False
    """Whether any error of the database, as long as it defers, may belong to what was put off."""

    def __init__(self) -> None:
        self.put_off: Final = PutOff()
        self._deferring = False
        self._savepoint: Literal["none", "due", "set"] = "none"

    def defer(self) -> None:
        """From now on, until the commit, what nobody asks for need not be done at once; what is read comes behind it
        all the same.
        """
        self._deferring = True

    @abstractmethod
    def commit(self) -> None:
        """Do all that was put off, and commit. Raises Unreached, or the library's error when the commit failed."""

    def abandon(self) -> None:
        """Undo the whole transaction. Raises the library's error when the connection is of no use any more."""
        self._over()
        self.script("ROLLBACK")

    def _over(self) -> None:
        """The transaction is over, or will be."""
        self._deferring = False
        self._savepoint = "none"
        self.put_off.clear()

    def open_snapshot(self) -> None:
        """What is read from now on is of one moment."""
        self.script("BEGIN")

    def close_snapshot(self) -> None:
        """Nothing more is read of that moment."""
        self.script("ROLLBACK")

    def enter(self) -> None:
        """A unit begins that may be undone alone."""
        self._savepoint = "due"

    def leave(self) -> None:
        """The unit that is running has ended well."""
        if self._savepoint == "set":
            self.script("RELEASE unit")
        self._savepoint = "none"
        self.put_off.keep()

    def undo(self) -> None:
        """Undo what was entered last. Raises the library's error when the whole transaction is lost."""
        if self._savepoint == "set":
            self.script("ROLLBACK TO unit")
            self.script("RELEASE unit")
        self._savepoint = "none"
        self.put_off.drop()

    def make_way(self, reach: frozenset[str] | None, *, writes: bool) -> None:
        """Before a statement: write the rows that it may ask for (all, where nothing is known of it), and remember
        where the unit began if it may change anything.
        """
        off = self.put_off
        asked = bool(off.tables) and (reach is None or not off.tables.isdisjoint(reach))
        if self._savepoint == "due" and (writes or (asked and off.has_own)):
            if asked:
                self._write(off.take_earlier())
            self.script("SAVEPOINT unit")
            self._savepoint = "set"
        if asked:
            self._write(off.take_all(behind_savepoint=self._savepoint == "set"))

    def _write(self, rows: Written) -> None:
        for statement, some in rows:
            self._insert(statement, some)

    @abstractmethod
    def _insert(self, statement: Statement, rows: Sequence[Sequence[object]]) -> None:
        """Write rows, without looking whether others should come first."""

    def add(self, statement: Statement, *rows: Sequence[object]) -> None:
        """Insert rows, given in the order of the statement's parameters. While the link defers, they are written before
        the first statement that may ask for them, at the latest by the commit.
        """
        if self._deferring:
            self.put_off.add(statement, rows)
        else:
            self.run_many(statement, rows)

    def add_one(self, statement: Statement, /, **values: object) -> None:
        """The same with one row, given by the names of the parameters."""
        form: Form = getattr(statement, self.dialect)
        self.add(statement, form.bind(values))

    def add_open(self, statement: Statement, row: MutableSequence[object], name: object) -> None:
        """The same with a row that may be changed for as long as `put_off` knows it by its name."""
        self.add(statement, row)
        if self._deferring:
            self.put_off.name(name, row)

    @abstractmethod
    def run(self, statement: Statement, /, **values: object) -> int:
        """Execute; how many rows were changed."""

    def tell(self, statement: Statement, /, **values: object) -> None:
        """Execute, where nobody asks how many rows were changed. While the link defers, it may be done later."""
        self.run(statement, **values)

    def change_one(self, statement: Statement, missing: OvernightError, /, **values: object) -> None:
        """Execute; `missing` is raised unless exactly one row was changed. While the link defers, that may come later,
        as another error of the database; the unit is then run again, where nothing is put off.
        """
        if self.run(statement, **values) != 1:
            raise missing

    @abstractmethod
    def run_many(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """Execute for each row of parameters, which come in the order of the text."""

    @abstractmethod
    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """The first row, or None."""

    @abstractmethod
    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """Every row."""

    def later(self, statement: Statement, then: Callable[[list[Row]], None], /, **values: object) -> None:
        """Execute, and give `then` every row; while the link defers perhaps only when its unit has ended, at the latest
        before the commit is told. It must not fail, nor ask for anything; on what it does, nothing that is written may
        depend.
        """
        then(self.all(statement, **values))

    @abstractmethod
    def select(self, clause: Executable) -> list[Row]:
        """Every row of a statement that was put together for this call."""

    @abstractmethod
    def rows(self, sql: str, *values: object) -> list[Row]:
        """Every row of a text in this database's own words: for what only it can answer (pragmas, catalogs)."""

    @abstractmethod
    def script(self, sql: str) -> None:
        """Transaction control and settings."""

    @abstractmethod
    def size_bytes(self) -> int:
        """How much the database holds; pages that deleted rows left free do not count where that is known."""

    @abstractmethod
    def close(self) -> None:
        """Close both the Core side and the connection."""

    def count(self, table: str) -> int:
        """How many rows a table has."""
        quoted = table.replace('"', '""')
        return int(self.rows(f'SELECT count(*) FROM "{quoted}"')[0][0])  # noqa: S608 -- quoted
