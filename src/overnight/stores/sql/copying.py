"""Copying a whole database into another, of either kind, and proving that nothing was lost or changed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

from sqlalchemy import Table, select, tuple_

from overnight.errors import UnsafeDatabase
from overnight.stores.sql.schema import ALL_TABLES, events, installation
from overnight.stores.sql.statements import Link, Row

SLICE_ROWS: Final = 500
"""Rows that are read, and committed, at a time."""
UNFINISHED: Final = "copy.unfinished"
"""The installation's key that says that a copy into this database was begun and not finished."""
MARKS: Final = "writer."
"""What the installation's keys begin with under which the writers of a Postgres database leave their marks."""
_OWN: Final = ("host_id", UNFINISHED)
"""Facts of one database file or one attempt, which are not copied."""
_NUL, _SHOWN_NUL = "\0", "\N{REPLACEMENT CHARACTER}"

Tell = Callable[[str, int], None]
"""Told the name of a table and how many of its rows are done, after every slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What two databases were found to have in common after a copy."""

    rows: dict[str, int]
    """How many, by table."""
    digests: dict[str, str]
    """SHA-256 over the rows of a table in the order of its key, by table."""
    streams: int
    """Event streams whose own digests were compared as well."""
    events: int
    mended: int
    """Texts with a NUL in them, which Postgres cannot keep: the sign for what cannot be shown stands in its place."""


class Target(Protocol):
    """Where the rows go."""

    @property
    def link(self) -> Link:
        """The connection, within a transaction."""
        ...

    def fill(self, table: Table, rows: list[list[object]]) -> None:
        """Add rows, all columns in the order of the table."""
        ...

    def count_on(self, table: str, last: int) -> None:
        """Give out keys behind `last` from now on."""
        ...

    def commit(self) -> None:
        """Make durable what was written, and go on."""
        ...


def copy(source: Link, target: Target, tell: Tell) -> Proof:
    """Put every row of `source`, read in one snapshot, into the empty `target`; then read both and compare.

    Slice by slice, each committed. Raises UnsafeDatabase when what arrived is not what left.
    """
    mended = 0
    target.link.script("DELETE FROM counters")
    for table in ALL_TABLES:
        done = 0
        for rows in slices(source, table):
            mended += sum(_NUL in value for row in rows for value in row if isinstance(value, str))
            target.fill(table, [[_storable(value) for value in row] for row in rows])
            target.commit()
            done += len(rows)
            tell(table.name, done)
        if table.dialect_options["sqlite"]["autoincrement"]:
            target.count_on(table.name, last_given(source, table.name))
    target.commit()
    return prove(source, target.link, mended=mended)


def prove(source: Link, target: Link, *, mended: int = 0) -> Proof:
    """Read both databases whole and compare them. Raises UnsafeDatabase naming what differs."""
    rows, digests, streams, events = dict[str, int](), dict[str, str](), 0, 0
    for table in ALL_TABLES:
        left, right = _read(source, table), _read(target, table)
        if left != right:
            raise UnsafeDatabase(
                f"the copy of {table.name} differs: {left.count} rows ({left.digest[:12]}) left, "
                f"{right.count} ({right.digest[:12]}) arrived{_first_difference(left, right)}"
            )
        rows[table.name], digests[table.name] = left.count, left.digest
        if table.name == "events":
            streams, events = len(left.parts), left.count
    return Proof(rows=rows, digests=digests, streams=streams, events=events, mended=mended)


def slices(link: Link, table: Table) -> Iterator[list[Row]]:
    """The rows of a table in the order of its key, a slice at a time; what belongs to one database alone left out."""
    keys = list(table.primary_key.columns)
    places = [list(table.columns).index(column) for column in keys]
    base = select(*table.columns).order_by(*keys).limit(SLICE_ROWS)
    if table is installation:
        base = base.where(
            installation.c.key.not_in(_OWN),
            installation.c.key.not_like("schema.%"),
            installation.c.key.not_like(f"{MARKS}%"),
        )
    after: tuple[Any, ...] | None = None
    while True:
        query = base if after is None else base.where(tuple_(*keys) > tuple_(*after))
        rows = link.select(query)
        if rows:
            yield rows
        if len(rows) < SLICE_ROWS:
            return
        after = tuple(rows[-1][place] for place in places)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    count: int
    digest: str
    parts: dict[int, tuple[int, str]]
    """For events: how many, and their digest, by stream."""


def _read(link: Link, table: Table) -> _Content:
    whole, count = hashlib.sha256(), 0
    parts: dict[int, tuple[int, str]] = {}
    rows = (row for found in slices(link, table) for row in found)
    for first, group in groupby(rows, key=lambda row: int(row[0]) if table is events else 0):
        many, part = 0, hashlib.sha256()
        for row in group:
            line = canonical(row)
            whole.update(line)
            part.update(line)
            many += 1
        count += many
        if table is events:
            parts[first] = (many, part.hexdigest())
    return _Content(count=count, digest=whole.hexdigest(), parts=parts)


def canonical(row: Row) -> bytes:
    """A row as bytes, the same on every database: each value with its kind and its length."""
    return b"".join(map(_canonical, row)) + b"\n"


def _canonical(value: object) -> bytes:
    match value:
        case None:
            return b"n;"
        case bytes():
            return b"b%d:%b;" % (len(value), value)
        case int():
            return b"i%d;" % value
        case str():
            text = value.replace(_NUL, _SHOWN_NUL).encode()
            return b"t%d:%b;" % (len(text), text)
        case _:
            raise TypeError(f"{type(value)} is no type of our tables")


def _storable(value: object) -> object:
    return value.replace(_NUL, _SHOWN_NUL) if isinstance(value, str) and _NUL in value else value


def _first_difference(left: _Content, right: _Content) -> str:
    for pk in sorted({*left.parts, *right.parts}):
        if left.parts.get(pk) != right.parts.get(pk):
            return f"; the first stream that differs is {pk}"
    return ""


def last_given(link: Link, table: str) -> int:
    """The last key that the database has given out for a table, whose row may be gone."""
    if link.dialect == "sqlite":
        rows = link.rows("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(rows[0][0]) if rows else 0
    sequence = link.rows("SELECT pg_get_serial_sequence($1, 'pk')", f'"{table}"')[0][0]
    last, is_called = link.rows(f"SELECT last_value, is_called FROM {sequence}")[0]  # noqa: S608 -- the server's words
    return int(last) if is_called else 0


def is_empty(link: Link) -> bool:
    """Whether there is nothing in our tables but what the schema brings along."""
    return not any(rows for table in ALL_TABLES if table.name != "counters" for rows in slices(link, table))
