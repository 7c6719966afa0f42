"""What a text in SQL may ask for and whether it may change anything: told from its words, rather too much than less."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from overnight.stores.sql.conventions import metadata

_WORD: Final = re.compile(r"\w+")
_CHANGING: Final = frozenset({"INSERT", "UPDATE", "DELETE"})


def is_writing(sql: str) -> bool:
    """Whether it may change anything. Row locks count."""
    return not sql.startswith(("SELECT", "WITH")) or not _CHANGING.isdisjoint(_WORD.findall(sql))


def reach(sql: str) -> frozenset[str]:
    """The tables whose rows it may ask for: those that it names and, where it changes something, those that the
    database looks into by itself, so that no key leads nowhere.
    """
    named = _tables().intersection(_WORD.findall(sql))
    if not is_writing(sql):
        return named
    return named.union(*map(_related, named))


@cache
def rank(table: str) -> int:
    """Its place among all tables: behind those that its keys lead to."""
    return [each.name for each in metadata.sorted_tables].index(table)


@cache
def _tables() -> frozenset[str]:
    return frozenset(metadata.tables)


@cache
def _related(table: str) -> frozenset[str]:
    """The tables that its keys lead to, and those whose keys lead to it."""
    leads_to = {key.column.table.name for key in metadata.tables[table].foreign_keys}
    return frozenset(leads_to) | {
        name
        for name, other in metadata.tables.items()
        if any(key.column.table.name == table for key in other.foreign_keys)
    }
