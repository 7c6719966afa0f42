"""What the tables share: the type of keys, the kinds of tables, and checks made from the state tables."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, text

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Key = BigInteger().with_variant(Integer(), "sqlite")
"""64-bit whole numbers; SQLite's rowid alias and its STRICT tables want the plain name."""

STRICT: Final[dict[str, Any]] = {"sqlite_strict": True}
PACKED: Final[dict[str, Any]] = {"sqlite_strict": True, "sqlite_with_rowid": False}
COUNTED: Final[dict[str, Any]] = {"sqlite_strict": True, "sqlite_autoincrement": True}
"""A deleted key is never given out again."""


def one_of(column: str, names: list[str]) -> str:
    """The column has one of the names."""
    quoted = ", ".join(f"'{name}'" for name in names)
    return f"{column} IN ({quoted})"


def ends(table: dict[str, bool]) -> str:
    """Final states carry `ended_at`, others do not."""
    final = [name for name, is_final in table.items() if is_final]
    return f"({one_of('state', final)}) = (ended_at IS NOT NULL)"


def partial_index(name: str, *columns: Column[object] | object, where: str, unique: bool = False) -> Index:
    """An index over the rows that fit alone."""
    # The migrations say the same for Postgres. Here it would load that dialect, with its drivers, at every start.
    return Index(name, *columns, unique=unique, sqlite_where=text(where))  # type: ignore[arg-type]
