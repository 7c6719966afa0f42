"""The database's own clock, for what several hosts must agree on. SQLite has none of its own: it is told the time."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Integer, bindparam, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from overnight.stores.sql.context import Context
from overnight.stores.sql.statements import Statement

_WHOLE: Final = BigInteger().with_variant(Integer(), "sqlite")


class _Now(FunctionElement[int]):
    """Wall milliseconds."""

    name = "wall_ms"
    type = _WHOLE
    inherit_cache = True


@compiles(_Now)
def _told(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_Now, "postgresql")
def _own(element: _Now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001 -- the compiler's call
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


def database_now() -> FunctionElement[int]:
    """The time in a statement, in wall milliseconds; whoever runs it passes `told(context)` along."""
    return _Now(bindparam("told_ms", type_=_WHOLE))


_ASK: Final = Statement(select(database_now()))


def told(context: Context) -> dict[str, int]:
    """The parameter that `database_now` takes where the database has no clock."""
    return {"told_ms": context.clock.wall_ms()}


def ask(context: Context) -> int:
    """The time itself, wall milliseconds."""
    row = context.link.one(_ASK, **told(context))
    assert row is not None  # noqa: S101 -- a SELECT without a table has one row
    return int(row[0])
