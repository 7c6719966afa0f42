"""Runs as OpenAI responses: whole, and as a stream that goes on at any sequence number."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from overnight.domain.event import FINAL_TYPES, Recorded
from overnight.domain.run import Run
from overnight.engine.channel import Batch, Entry
from overnight.engine.follow import Follower
from overnight.errors import InvalidCursor, InvalidInput, NotFound, StreamTrimmed
from overnight.ports.tables import StreamMark
from overnight.ports.unit_of_work import UnitOfWork
from overnight.server.connected import Attachment
from overnight.server.connections import Connections
from overnight.server.sse import EventStream
from overnight.wire import sse
from overnight.wire.responses import (
    FINAL_STEP,
    FINISH,
    MAPPED,
    Mapper,
    Position,
    Shelf,
    Step,
    frames,
    head_of,
    response,
)

PAGE: Final = 100
"""Events that are read at a time to find out where a run stands: each may have a quarter of a megabyte."""
Whole = tuple[Run, dict[str, object]]


class Responses:
    """Reads the log for this shape: to find where a stream goes on, and to make whole responses."""

    def __init__(self, uow: UnitOfWork) -> None:
        self._uow = uow
        self._making: dict[int, asyncio.Task[Whole]] = {}

    async def whole(self, run: Run) -> dict[str, object]:
        """The response as the run stands."""
        shelf = Shelf()
        await self._fed(run, run.last_seq, Mapper(head_of(run)), shelf)
        return response(run, shelf)

    async def final(self, run: Run) -> Whole:
        """The run as it ended, and its response: made once for all whose streams end with it. Raises NotFound."""
        making = self._making.get(run.pk)
        if making is None:
            making = self._making[run.pk] = asyncio.create_task(self._final(run), name=f"response {run.id}")
            making.add_done_callback(partial(self._made, run.pk))
        return await asyncio.shield(making)

    async def mapper(self, run: Run, at: Position, *, extensions: bool) -> Mapper:
        """A mapper that goes on at that position."""
        mapper = Mapper(head_of(run), extensions=extensions)
        await self._fed(run, at.whole, mapper, None)
        mapper.resume(at)
        return mapper

    def _made(self, pk: int, making: asyncio.Task[Whole]) -> None:
        del self._making[pk]
        if not making.cancelled():
            making.exception()  # those who waited have it; there may be none of them left

    async def _final(self, run: Run) -> Whole:
        ended = await self._uow.read(lambda tx: tx.runs.get(run.id, run.owner))
        return ended, await self.whole(ended)

    async def _fed(self, run: Run, upto: int, mapper: Mapper, shelf: Shelf | None) -> None:
        after, more = 0, upto > 0
        while more:
            page = await self._page(run, after, upto)
            for event in page:
                steps = mapper.feed(event)
                if shelf is not None:
                    shelf.take(steps)
            more = len(page) == PAGE
            after = page[-1].seq if page else after
        mapper.skip(upto)

    async def _page(self, run: Run, after: int, upto: int) -> Sequence[Recorded]:
        return await self._uow.read(
            lambda tx: tx.events.select(
                run.pk, after=after, before=upto + 1, descending=False, types=MAPPED, turn=None, limit=PAGE
            )
        )


class Telling:
    """One reader's rendering: it remembers what that reader has been told, so nothing of it is shared."""

    def __init__(
        self, responses: Responses, run: Run, mapper: Mapper, at: Position, *, named: bool, live: bool
    ) -> None:
        self._responses = responses
        self._run = run
        self._mapper = mapper
        self._floor = at.number if at.whole < at.seq else 0
        self._named = named
        self._live = live

    def frames(self, entries: Sequence[Entry[Recorded]]) -> bytes:
        """See `sse.Rendering`."""
        return b"".join([piece for entry in entries for piece in self._told(entry)])

    async def ending(self, cursor: int) -> bytes:
        """The response as it ended, and the last words. A run that has been removed meanwhile just stops."""
        try:
            run, whole = await self._responses.final(self._run)
        except NotFound:
            return sse.CLOSING
        last = self._new([self._mapper.finish(FINAL_STEP[run.state], whole)])
        return frames(last, cursor, named=self._named) + sse.end(cursor)

    def _told(self, entry: Entry[Recorded]) -> list[bytes]:
        if isinstance(entry, Batch):
            return [self._event(event) for event in entry.items]
        if not self._live:
            return []
        # What is shown live moves no cursor.
        return [
            frames(self._mapper.show(entry.body), self._mapper.seq + 1, named=self._named, complete=False)
        ]

    def _event(self, event: Recorded) -> bytes:
        steps = self._new(self._mapper.feed(event))
        return frames(steps, event.seq, named=self._named, complete=event.type not in FINAL_TYPES)

    def _new(self, steps: list[Step]) -> list[Step]:
        """What the reader has not been told before it came back."""
        return [step for step in steps if step["sequence_number"] > self._floor] if self._floor else steps


def check_position(at: Position, mark: StreamMark) -> None:
    """Raise InvalidCursor for a position that is not reached yet, StreamTrimmed where the beginning is gone.

    What an item is called, and where it stands, follows from all that came before it.
    """
    if at.seq > mark.last:
        raise InvalidCursor("there is no event with that sequence number yet")
    if mark.first > 1:
        raise StreamTrimmed(
            f"the first events have been trimmed; {mark.first} is the earliest that is left",
            mend="read the response without stream, or follow the run in its own shape",
            extra={"earliest": mark.first, "latest": mark.last},
        )


def is_told(run: Run, at: Position, mark: StreamMark) -> bool:
    """Whether there is nothing to come behind that position."""
    return run.final and at.seq == mark.last and at.slot >= FINISH


async def told(
    responses: Responses, follower: Follower, connections: Connections, run: Run, at: Position, what: Attachment, *,
    named: bool = True, live: bool = True, extensions: bool = False,
) -> EventStream[Recorded]:  # fmt: skip
    """The stream of a run's Responses events behind `at`, which has been checked."""
    mapper = await responses.mapper(run, at, extensions=extensions)
    telling = Telling(responses, run, mapper, at, named=named, live=live)
    return EventStream(follower.events(run, at.whole), telling, connections, what)


def refuse_gap(on_gap: str) -> None:
    """Raise InvalidInput: a response whose beginning is gone cannot be told from its middle."""
    if on_gap == "event":
        raise InvalidInput("on_gap=event does not go with shape=responses", mend="leave one of them out")
