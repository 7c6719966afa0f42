"""The event log: numbered, stamped, encoded once, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from overnight.domain.event import SCHEMA_VERSION, Draft, Recorded, encode, upcast
from overnight.errors import NotFound
from overnight.ports.notifier import stream_topic
from overnight.ports.tables import StreamMark
from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import events, streams
from overnight.stores.sql.statements import Row, Statement, key

_HEAD: Final = Statement(
    select(streams.c.last_seq, streams.c.last_at, streams.c.run_id, streams.c.session_id)
    .where(streams.c.pk == key("stream"))
    .with_for_update()
)
_ADVANCE: Final = Statement(
    update(streams)
    .where(streams.c.pk == key("stream"))
    .values(
        last_seq=bindparam("last"),
        last_at=bindparam("stamp"),
        bytes=streams.c.bytes + bindparam("more"),
    )
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
_DOOMED: Final = (events.c.stream_pk == key("stream"), events.c.seq < key("before"))
_WEIGHT: Final = Statement(select(func.coalesce(func.sum(func.length(events.c.body)), 0)).where(*_DOOMED))
_TRIM: Final = Statement(delete(events).where(*_DOOMED))
_TRIMMED: Final = Statement(
    update(streams)
    .where(streams.c.pk == key("stream"))
    .values(first_seq=bindparam("first"), bytes=streams.c.bytes - bindparam("less"))
)


class SqlEventLog:
    """See `ports.tables.EventLog`."""

    __slots__ = ("_context", "_link")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = context.link

    def append(self, stream_pk: int, drafts: Sequence[Draft], at: int) -> tuple[Recorded, ...]:
        """See the port."""
        head = self._link.one(_HEAD, key_stream=stream_pk)
        if head is None:
            raise NotFound(f"no stream {stream_pk}")
        if not drafts:
            return ()
        last, last_at, run_id, session_id = head
        stamp = at if last_at is None else max(at, last_at)
        rows: list[tuple[object, ...]] = []
        found: list[Recorded] = []
        size = 0
        for seq, draft in enumerate(drafts, last + 1):
            body = encode(draft, seq=seq, run_id=run_id, session_id=session_id, at=stamp)
            size += len(body)
            rows.append((stream_pk, seq, draft.type, draft.turn, stamp, SCHEMA_VERSION, body))
            found.append(Recorded(seq, draft.type, body))
        self._link.run_many(_INSERT, rows)
        self._link.run(_ADVANCE, key_stream=stream_pk, last=last + len(found), stamp=stamp, more=size)
        recorded = tuple(found)
        self._context.recorded(stream_topic(stream_pk), recorded)
        return recorded

    def mark(self, stream_pk: int) -> StreamMark:
        """See the port."""
        row = self._link.one(_MARK, key_stream=stream_pk)
        if row is None:
            raise NotFound(f"no stream {stream_pk}")
        return StreamMark(first=row[0], last=row[1])

    def after(self, stream_pk: int, seq: int, limit: int) -> tuple[Recorded, ...]:
        """See the port."""
        return tuple(map(_recorded, self._link.all(_AFTER, key_stream=stream_pk, key_seq=seq, most=limit)))

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
        weight = self._link.one(_WEIGHT, key_stream=stream_pk, key_before=bound)
        removed = self._link.run(_TRIM, key_stream=stream_pk, key_before=bound)
        self._link.run(_TRIMMED, key_stream=stream_pk, first=bound, less=weight[0] if weight else 0)
        return removed


def _recorded(row: Row) -> Recorded:
    seq, type, body, version = row
    return Recorded(seq, type, upcast(body, version))
