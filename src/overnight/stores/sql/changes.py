"""The server's order of run changes, and the keys of streams, which come from the same counter."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select, update

from overnight.ports.notifier import CHANGES
from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import counters
from overnight.stores.sql.statements import Link, Statement

_NEXT: Final = Statement(
    update(counters)
    .where(counters.c.name == "change")
    .values(value=counters.c.value + bindparam("more"))
    .returning(counters.c.value)
)
_LAST: Final = Statement(select(counters.c.value).where(counters.c.name == "change"))


def next_change(context: Context) -> int:
    """The next position in the order of changes; wakes the summaries after the commit."""
    context.wake(CHANGES)
    return next_number(context.link)


def next_changes(context: Context, many: int) -> range:
    """The next positions at once, in order."""
    context.wake(CHANGES)
    last = next_number(context.link, many)
    return range(last - many + 1, last + 1)


def next_number(link: Link, more: int = 1) -> int:
    """A number that was never given out before; with `more`, the last of so many."""
    row = link.one(_NEXT, more=more)
    assert row is not None  # noqa: S101 -- the row is made with the schema
    return int(row[0])


def last_change(context: Context) -> int:
    """The position of the newest change; 0 before the first."""
    row = context.link.one(_LAST)
    return int(row[0]) if row else 0
