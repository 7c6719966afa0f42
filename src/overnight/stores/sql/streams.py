"""Rows of the streams table: made with a run or a session, removed with it."""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import bindparam, delete, insert

from overnight.stores.sql.schema import events, streams
from overnight.stores.sql.statements import Link, Statement, key

_ADD: Final = Statement(
    insert(streams)
    .values(
        kind=bindparam("kind"),
        owner=bindparam("owner"),
        run_id=bindparam("run_id"),
        session_id=bindparam("session_id"),
    )
    .returning(streams.c.pk)
)
_DELETE_EVENTS: Final = Statement(delete(events).where(events.c.stream_pk == key("stream")))
_DELETE: Final = Statement(delete(streams).where(streams.c.pk == key("stream")))


def add_stream(
    link: Link, *, kind: Literal["run", "session"], owner: str, run_id: str | None, session_id: str
) -> int:
    """A new, empty stream; its key is also that of its run or session."""
    row = link.one(_ADD, kind=kind, owner=owner, run_id=run_id, session_id=session_id)
    assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
    return int(row[0])


def delete_stream(link: Link, pk: int) -> None:
    """Remove a stream with all its events; whoever wants slices trims it first."""
    link.run(_DELETE_EVENTS, key_stream=pk)
    link.run(_DELETE, key_stream=pk)
