"""Rows of the streams table: made with a run or a session, removed with it."""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import bindparam, delete, insert

from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import events, streams
from overnight.stores.sql.statements import Link, Statement, key

_ADD: Final = Statement(
    insert(streams).values(
        {name: bindparam(name) for name in ("pk", "kind", "owner", "run_id", "session_id")}
    )
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
    context.link.tell(_ADD, pk=pk, kind=kind, owner=owner, run_id=run_id, session_id=session_id)
    context.new_streams[pk] = (run_id, session_id)


def delete_stream(link: Link, pk: int) -> None:
    """Remove a stream with all its events; whoever wants slices trims it first."""
    link.run(_DELETE_EVENTS, key_stream=pk)
    link.run(_DELETE, key_stream=pk)
