"""The server's order of run changes, and the keys of streams, which come from the same counter.

One transaction writes at a time, so it reads the counter once, counts on in memory and writes it down at its end. A
unit that is rolled back leaves its numbers unused.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select, update

from overnight.ports.notifier import CHANGES
from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import counters
from overnight.stores.sql.statements import Statement

_KEEP: Final = Statement(
    update(counters).where(counters.c.name == "change").values(value=bindparam("newest"))
)
LAST: Final = Statement(select(counters.c.value).where(counters.c.name == "change"))
"""What nearly every transaction asks first."""


def next_change(context: Context) -> int:
    """The next position in the order of changes; wakes the summaries after the commit."""
    context.wake(CHANGES)
    return next_number(context)


def next_changes(context: Context, many: int) -> range:
    """The next positions at once, in order."""
    context.wake(CHANGES)
    last = next_number(context, many)
    return range(last - many + 1, last + 1)


def next_number(context: Context, more: int = 1) -> int:
    """A number that was never given out before; with `more`, the last of so many."""
    context.last_number = last_change(context) + more
    return context.last_number


def keep_numbers(context: Context) -> None:
    """Write down the newest number, if there is a new one: before the commit, and before SQL that looks it up."""
    if context.last_number is not None:
        context.link.tell(_KEEP, newest=context.last_number)


def last_change(context: Context) -> int:
    """The position of the newest change; 0 before the first."""
    if context.last_number is not None:
        return context.last_number
    row = context.link.one(LAST)
    return int(row[0]) if row else 0
