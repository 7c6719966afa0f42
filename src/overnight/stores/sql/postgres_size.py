"""How much a Postgres database holds. Its files never shrink, so what is alive in them is counted and weighed."""

from __future__ import annotations

from typing import Final

from overnight.stores.sql.statements import Link

SMALL: Final = 1 << 20
"""Tables below this size count as they are."""
_PAGES: Final = 64
"""Pages of a table that are looked at for the size of its rows."""
_PAGE: Final = 8192
_HEADER: Final = 28
"""Bytes that a row takes beside its columns."""
_AROUND: Final = 1.3
"""Indexes, and the room that pages leave."""
_TABLES: Final = (
    "SELECT c.relname::text, pg_total_relation_size(c.oid), greatest(pg_relation_size(c.oid), 1),"
    " coalesce(pg_stat_get_live_tuples(c.oid), 0) FROM pg_class c "
    "WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace"
)


def live_bytes(link: Link) -> int:
    """An estimate that goes down as soon as rows are deleted, as whoever deletes until it fits relies on.

    Events are counted by their streams and runs by themselves; the server's own counts come a second late.
    """
    events = link.rows("SELECT coalesce(sum(last_seq - first_seq + 1), 0)::bigint FROM streams")[0][0]
    runs = link.rows("SELECT count(*) FROM runs")[0][0]
    found = link.rows(_TABLES)
    known = next((rows for name, _, _, rows in found if name == "runs"), 0)
    total = 0.0
    for name, whole, heap, rows in found:
        if whole < SMALL:
            total += whole
            continue
        count = events if name == "events" else rows * (runs / known if known else 1)
        total += min(whole, count * (_row_bytes(link, name, heap) + _HEADER) * _AROUND)
    return round(total)


def _row_bytes(link: Link, name: str, heap: int) -> float:
    percent = min(100.0, 100.0 * _PAGES * _PAGE / heap)
    sql = f'SELECT avg(pg_column_size(t.*))::float8 FROM "{name}" t TABLESAMPLE SYSTEM ({percent:f})'  # noqa: S608
    return float(link.rows(sql)[0][0] or 0)
