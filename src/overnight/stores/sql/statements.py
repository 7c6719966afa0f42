"""Statements written with Core, compiled once for each database, executed on the DB-API cursor; and what runs them.

Core's own execution costs about as much as SQLite itself on small statements, so what is fixed bypasses it. What is
put together for each call (filters) goes through Core, which caches by shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    FromClause,
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
from sqlalchemy.types import BigInteger, Integer, Text, TypeEngine

from overnight.errors import OvernightError

DialectName = Literal["sqlite", "postgres"]
Row = tuple[Any, ...]

_SQLITE: Final = sqlite.dialect(paramstyle="qmark")
_WHOLE: Final = BigInteger().with_variant(Integer(), "sqlite")


class Form:
    """A statement in the words of one database, and the order of its parameters."""

    __slots__ = ("_fixed", "names", "sql")

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = cast("SQLCompiler", clause.compile(dialect=dialect))
        self.sql = str(compiled)
        self.names = tuple(compiled.positiontup or ())
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def bind(self, values: Mapping[str, object]) -> list[object]:
        """The parameters in the order of the text. Raises KeyError for one that is missing."""
        fixed = self._fixed
        return [values[name] if name in values else fixed[name] for name in self.names]


class Statement:
    """One statement; its form for a database is made when that database first asks for it."""

    __slots__ = ("_clause", "postgres", "sqlite")

    postgres: Form
    sqlite: Form

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause

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


class Link(ABC):
    """One connection to the database, for one thread at a time."""

    __slots__ = ()

    dialect: DialectName
    defers: bool = False
    """Whether it can: then an error of the database may belong to what was told before."""

    @abstractmethod
    def run(self, statement: Statement, /, **values: object) -> int:
        """Execute; how many rows were changed."""

    def tell(self, statement: Statement, /, **values: object) -> None:
        """Execute, where nobody asks how many rows were changed. While the link defers, it may be done later."""
        self.run(statement, **values)

    def change_one(self, statement: Statement, missing: OvernightError, /, **values: object) -> None:
        """Execute; `missing` is raised unless exactly one row was changed. While the link defers: by `confirm`."""
        if self.run(statement, **values) != 1:
            raise missing

    def confirm(self) -> None:  # noqa: B027 -- most links put nothing off
        """Raise what `change_one` has put off. At the end of every unit."""

    def defer(self) -> None:  # noqa: B027
        """From now on, what is told need not be waited for; what is read comes behind it all the same."""

    def settle(self) -> None:  # noqa: B027
        """Defer no more: all that was told is done. Raises the library's error when some of it was not."""

    @abstractmethod
    def run_many(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """Execute for each row of parameters, which come in the order of the text."""

    @abstractmethod
    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """The first row, or None."""

    @abstractmethod
    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """Every row."""

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
