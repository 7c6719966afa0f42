"""Rows of the streams table: made with a run or a session, removed with it."""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import bindparam, delete, insert, update

from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import events, streams
from overnight.stores.sql.statements import Link, Statement, key

_COLUMNS: Final = ("pk", "kind", "owner", "run_id", "session_id", "last_seq", "last_at")
"""In the order of the table, which is that of the parameters."""
_ADD: Final = Statement(insert(streams).values({name: bindparam(name) for name in _COLUMNS}))
_END: Final = Statement(
    update(streams)
    .where(streams.c.pk == key("stream"))
    .values(last_seq=bindparam("last"), last_at=bindparam("at"))
)
_DELETE_EVENTS: Final = Statement(delete(events).where(events.c.stream_pk == key("stream")))
_DELETE: Final = Statement(delete(streams).where(streams.c.pk == key("stream")))


def add_stream(
    context: Context,
    pk: int,
    *,
    kind: Literal["run", "session"],
    owner: str,
    run_id: str | None,
    session_id: str,
) -> None:
    """A new, empty stream under a new number, which is also the key of its run or session."""
    context.link.add_open(_ADD, [pk, kind, owner, run_id, session_id, 0, None], name=pk)
    context.seen.stream(pk, 0, None, run_id=run_id, session_id=session_id)


def set_end(link: Link, pk: int, last_seq: int, last_at: int) -> None:
    """Say where a stream ends now: in its row, while that is not written yet."""
    row = link.put_off.unwritten(pk)
    if row is None:
        link.tell(_END, key_stream=pk, last=last_seq, at=last_at)
    else:
        row[-2:] = last_seq, last_at


def delete_stream(link: Link, pk: int) -> None:
    """Remove a stream with all its events; whoever wants slices trims it first."""
    link.run(_DELETE_EVENTS, key_stream=pk)
    link.run(_DELETE, key_stream=pk)
