"""The event log: numbered, stamped, encoded once, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, case, delete, func, insert, select, update

from overnight.domain.event import SCHEMA_VERSION, Draft, Recorded, encode, upcast
from overnight.errors import NotFound
from overnight.ports.notifier import stream_topic
from overnight.ports.tables import StreamMark
from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import events, streams
from overnight.stores.sql.statements import Row, Statement, key
from overnight.stores.sql.streams import set_end

_ADVANCE: Final = Statement(
    update(streams)
    .where(streams.c.pk == key("stream"))
    .values(
        last_seq=streams.c.last_seq + bindparam("more"),
        last_at=case((streams.c.last_at > key("at"), streams.c.last_at), else_=key("at")),
    )
    .returning(streams.c.last_seq, streams.c.last_at, streams.c.run_id, streams.c.session_id)
)
_INSERT: Final = Statement(insert(events))
_MARK: Final = Statement(select(streams.c.first_seq, streams.c.last_seq).where(streams.c.pk == key("stream")))
_READ: Final = (events.c.seq, events.c.type, events.c.body, events.c.version)
_AFTER: Final = Statement(
    select(*_READ)
    .where(events.c.stream_pk == key("stream"), events.c.seq > key("seq"))
    .order_by(events.c.seq)
    .limit(bindparam("most"))
)
_SIZES: Final = (
    select(events.c.seq, func.length(events.c.body).label("size"))
    .where(events.c.stream_pk == key("stream"), events.c.seq > key("seq"))
    .order_by(events.c.seq)
    .limit(bindparam("most"))
    .subquery()
)
_BEFORE: Final = select(
    _SIZES.c.seq, (func.sum(_SIZES.c.size).over(order_by=_SIZES.c.seq) - _SIZES.c.size).label("bytes")
).subquery()
_PAGE: Final = Statement(
    select(*_READ)
    .where(
        events.c.stream_pk == key("stream"),
        events.c.seq > key("seq"),
        events.c.seq
        <= select(func.max(_BEFORE.c.seq)).where(_BEFORE.c.bytes < key("bytes")).scalar_subquery(),
    )
    .order_by(events.c.seq)
)
"""Sizes are read without the bodies, by both databases: what is too much is never fetched."""
_TRIM: Final = Statement(
    delete(events).where(events.c.stream_pk == key("stream"), events.c.seq < key("before"))
)
_TRIMMED: Final = Statement(
    update(streams).where(streams.c.pk == key("stream")).values(first_seq=bindparam("first"))
)


class SqlEventLog:
    """See `ports.tables.EventLog`."""

    __slots__ = ("_context", "_link")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = context.link

    def append(self, stream_pk: int, drafts: Sequence[Draft], at: int) -> tuple[Recorded, ...]:
        """See the port."""
        if not drafts:
            return ()
        last, stamp, run_id, session_id = self._advance(stream_pk, at, len(drafts))
        recorded = tuple(
            Recorded(seq, draft.type, encode(draft, seq=seq, run_id=run_id, session_id=session_id, at=stamp))
            for seq, draft in enumerate(drafts, last - len(drafts) + 1)
        )
        self._link.add(
            _INSERT,
            *(
                (stream_pk, event.seq, event.type, draft.turn, stamp, SCHEMA_VERSION, event.body)
                for event, draft in zip(recorded, drafts, strict=True)
            ),
        )
        self._context.recorded(stream_topic(run_id or session_id), recorded)
        return recorded

    def _advance(self, stream_pk: int, at: int, more: int) -> tuple[int, int, str | None, str]:
        """Take the next numbers: the last of them, the time they are stamped with, and whose stream it is."""
        seen = self._context.seen.streams.get(stream_pk)
        if seen is not None:
            seen.last_seq, seen.last_at = seen.last_seq + more, max(at, seen.last_at or at)
            set_end(self._link, stream_pk, seen.last_seq, seen.last_at)
            return seen.last_seq, seen.last_at, seen.run_id, seen.session_id
        end = self._link.one(_ADVANCE, key_stream=stream_pk, key_at=at, more=more)
        if end is None:
            raise NotFound(f"no stream {stream_pk}")
        last, stamp, run_id, session_id = end
        return last, stamp, run_id, session_id

    def mark(self, stream_pk: int) -> StreamMark:
        """See the port."""
        row = self._link.one(_MARK, key_stream=stream_pk)
        if row is None:
            raise NotFound(f"no stream {stream_pk}")
        return StreamMark(first=row[0], last=row[1])

    def after(
        self, stream_pk: int, seq: int, limit: int, most_bytes: int | None = None
    ) -> tuple[Recorded, ...]:
        """See the port."""
        wanted = {"key_stream": stream_pk, "key_seq": seq, "most": limit}
        if most_bytes is None:
            return tuple(map(_recorded, self._link.all(_AFTER, **wanted)))
        return tuple(map(_recorded, self._link.all(_PAGE, **wanted, key_bytes=most_bytes)))

    def select(
        self,
        stream_pk: int,
        *,
        after: int | None,
        before: int | None,
        descending: bool,
        types: tuple[str, ...],
        turn: int | None,
        limit: int,
    ) -> tuple[Recorded, ...]:
        """See the port."""
        query = select(*_READ).where(events.c.stream_pk == stream_pk)
        if after is not None:
            query = query.where(events.c.seq > after)
        if before is not None:
            query = query.where(events.c.seq < before)
        if types:
            query = query.where(events.c.type.in_(types))
        if turn is not None:
            query = query.where(events.c.turn == turn)
        query = query.order_by(events.c.seq.desc() if descending else events.c.seq).limit(limit)
        return tuple(map(_recorded, self._link.select(query)))

    def trim(self, stream_pk: int, before: int, limit: int) -> int:
        """See the port."""
        mark = self.mark(stream_pk)
        bound = min(before, mark.first + limit, mark.last + 1)
        if bound <= mark.first:
            return 0
        removed = self._link.run(_TRIM, key_stream=stream_pk, key_before=bound)
        self._link.run(_TRIMMED, key_stream=stream_pk, first=bound)
        return removed


def _recorded(row: Row) -> Recorded:
    seq, type, body, version = row
    return Recorded(seq, type, upcast(body, version))
