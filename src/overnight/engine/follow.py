"""Following a stream: every item once, in order, from any position, for any number of readers.

A reader subscribes first, then reads the log page by page until the stream's channel has all that comes next, and goes
on with what the channel collects. Notices only say "look again" (and may carry the bytes); every hole is filled from
the log, and a slow poll stands behind. A batch of the channel is shared: it is rendered once for all its readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from overnight.domain.event import Recorded
from overnight.domain.run import Run
from overnight.engine.channel import Batch, Channel, Entry, Fragment, Item
from overnight.engine.sources import Changes, Events, Followed, Source
from overnight.errors import StreamTrimmed
from overnight.ports.notifier import Notifier
from overnight.ports.unit_of_work import UnitOfWork

Key = TypeVar("Key", int, str)

__all__ = ["Batch", "Follower", "Fragment", "Reader"]


class Reader(Generic[Item]):
    """One reader's place in a stream. One task reads; `nudge` and `close` may come from anywhere in the event loop."""

    __slots__ = ("_at", "_channel", "_waiter", "closed", "cursor", "on_nudge", "over")

    def __init__(self, channel: Channel[Item], after: int) -> None:
        self.cursor = after
        """Position of the last item that `read` has given."""
        self.over = False
        """The final item has been given: there is nothing more to read."""
        self.closed = False
        """Closed by `close`, or with its follower."""
        self.on_nudge: Callable[[], None] | None = None
        """Called at every nudge: for a reader that is busy with what it has read."""
        self._channel = channel
        self._at: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        channel.join(self)

    @property
    def taken(self) -> int | None:
        """Index in the channel of the first entry not read yet; None while the log is being read."""
        return self._at

    @property
    def collected_bytes(self) -> int:
        """How much the channel has collected so far; the difference between two moments is what has piled up."""
        return self._channel.total

    async def read(self) -> Sequence[Entry[Item]] | None:
        """What comes next; empty after a `nudge`; None when the stream is over or the reader closed.

        Raises StreamTrimmed when the log no longer has what comes next, NotFound for an unknown stream.
        """
        await self._channel.opened()
        while not (self.closed or self.over):
            index = self._at
            if index is None:
                if page := await self._replay():
                    return [page]
                continue
            entries = self._collect(index)
            if entries:
                return entries
            if entries is not None:
                known = self._channel.end
                await self._nudged()
                if self._is_idle(known):
                    return ()
        return None

    def nudge(self) -> None:
        """Make a waiting `read` come back, empty-handed when there is nothing new."""
        self._wake()
        if self.on_nudge is not None:
            self.on_nudge()

    def close(self) -> None:
        """Stop; idempotent. A waiting `read` gives None."""
        self.closed = True
        self._channel.leave(self)
        self._wake()

    def _nudged(self) -> asyncio.Future[None]:
        """To be awaited: the next nudge, or the end. A bare future, for there are thousands of readers that wait."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def _is_idle(self, known: int) -> bool:
        return not self.closed and self._channel.end == known

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _replay(self) -> Batch[Item] | None:
        """A page of the log; None once the channel has everything that comes next."""
        self._at = self._channel.index_after(self.cursor)
        if self._at is not None:
            return None
        upto = self._channel.last
        items = await self._channel.source.after(self.cursor)
        if items:
            return self._given(Batch(tuple(items), self._channel.source.position(items[-1])))
        self.cursor = self._channel.source.nothing_after(self.cursor, upto)
        return None

    def _collect(self, index: int) -> Sequence[Entry[Item]] | None:
        """Everything that the channel has from `index` on, without what is known already; None: read the log again."""
        entries = self._channel.since(index)
        if entries is None:
            self._at = None
            return None
        self._at = self._channel.end
        return [kept for entry in entries if (kept := self._new_of(entry)) is not None]

    def _new_of(self, entry: Entry[Item]) -> Entry[Item] | None:
        if isinstance(entry, Fragment):
            return entry
        if entry.last <= self.cursor:
            return None
        position = self._channel.source.position
        if position(entry.items[0]) > self.cursor:
            return self._given(entry)
        return self._given(
            Batch(tuple(item for item in entry.items if position(item) > self.cursor), entry.last)
        )

    def _given(self, batch: Batch[Item]) -> Batch[Item]:
        first = batch.items[0]
        if not self._channel.source.continues(self.cursor, first):
            raise StreamTrimmed(
                f"the events after {self.cursor} are no longer there",
                extra={"earliest": self._channel.source.position(first), "latest": batch.last},
            )
        self.cursor = batch.last
        self.over = self._channel.source.is_final(batch.items[-1])
        return batch


class Follower:
    """Opens readers. A channel is shared by the readers of one stream, and lives as long as it has any."""

    def __init__(self, uow: UnitOfWork, notifier: Notifier, *, poll_s: float = 1.0) -> None:
        self._uow = uow
        self._notifier = notifier
        self._poll_s = poll_s
        self._streams: dict[int, Channel[Recorded]] = {}
        self._changes: dict[str, Channel[Run]] = {}
        self._closed = False

    def events(self, followed: Followed, after: int) -> Reader[Recorded]:
        """A reader of the events after seq `after` of a run or session; close it when done.

        It has subscribed when this returns.
        """
        return self._open(self._streams, followed.pk, Events(self._uow, followed), after)

    def changes(self, owner: str, after: int) -> Reader[Run]:
        """A reader of the changes of an owner's runs after change `after`. Close it when done."""
        return self._open(self._changes, owner, Changes(self._uow, owner), after)

    async def follow(self, followed: Followed, after: int) -> AsyncIterator[tuple[Recorded, ...]]:
        """The events after seq `after`, in batches, until the final one (or for ever, where there is none)."""
        reader = self.events(followed, after)
        try:
            while (entries := await reader.read()) is not None:
                for entry in entries:
                    if isinstance(entry, Batch):
                        yield entry.items
        finally:
            reader.close()

    @property
    def watched(self) -> bool:
        """Whether anybody reads anything now."""
        return bool(self._streams or self._changes)

    def close(self) -> None:
        """End every reader, those that are opened later too; they can come back to another server."""
        self._closed = True
        for stream in tuple(self._streams.values()):
            stream.close()
        for changes in tuple(self._changes.values()):
            changes.close()

    def _open(
        self, channels: dict[Key, Channel[Item]], key: Key, source: Source[Item], after: int
    ) -> Reader[Item]:
        channel = channels.get(key)
        if channel is None:
            channel = Channel(source, self._notifier, poll_s=self._poll_s, gone=lambda: _drop(channels, key))
            channels[key] = channel
        reader = Reader(channel, after)
        if self._closed:
            reader.close()
        return reader


def _drop(channels: dict[Key, Channel[Item]], key: Key) -> None:
    channels.pop(key, None)
