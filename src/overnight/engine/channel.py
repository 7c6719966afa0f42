"""A stream's channel: what is new in one log, collected once for all who read it at this moment."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

import structlog

from overnight.engine.sources import PAGE, PAGE_BYTES, Source
from overnight.ports.notifier import Notice, Notifier

Item = TypeVar("Item")
RING_BYTES: Final = 4 * 1024 * 1024
"""How much a channel keeps for its slowest reader; who needs more reads the log."""
BATCH_BYTES: Final = 256 * 1024
CROWD: Final = 20
PACE_PER_LISTENER_S: Final = 0.00005
LOOK_PACE_S: Final = 0.005
"""Shortest time between two looks at the log: notices without events may come by the thousand."""

log = structlog.get_logger(__name__)


class Batch(Generic[Item]):
    """Consecutive items, never empty. `rendered` works once per key, however many readers ask."""

    __slots__ = ("_rendered", "items", "known_at", "last")

    def __init__(self, items: tuple[Item, ...], last: int) -> None:
        self.items = items
        self.last = last
        self.known_at = time.monotonic()
        """When this process learned of them, by the monotonic clock."""
        self._rendered: dict[Hashable, bytes] = {}

    def rendered(self, key: Hashable, make: Callable[[Sequence[Item]], bytes]) -> bytes:
        """What `make` gives for the items; made at the first call with that key."""
        found = self._rendered.get(key)
        if found is None:
            found = self._rendered[key] = make(self.items)
        return found


class Fragment:
    """A transient delta: `last` is the position of the item before it; nothing refers to it afterwards."""

    __slots__ = ("_rendered", "body", "last")

    def __init__(self, body: bytes, last: int) -> None:
        self.body = body
        self.last = last
        self._rendered: bytes | None = None

    def rendered(self, make: Callable[[int, bytes], bytes]) -> bytes:
        """What `make` gives for position and body; made once."""
        if self._rendered is None:
            self._rendered = make(self.last, self.body)
        return self._rendered


Entry = Batch[Item] | Fragment


class Listener(Protocol):
    """A reader as its channel sees it."""

    @property
    def taken(self) -> int | None:
        """Index of the first entry that it has not read; None while it reads the log."""
        ...

    def nudge(self) -> None:
        """There is something new."""
        ...

    def close(self) -> None:
        """It is over for this reader."""
        ...


class Channel(Generic[Item]):
    """Collects what is new since it was opened, while it has listeners. Entries are numbered from 0."""

    def __init__(
        self, source: Source[Item], notifier: Notifier, *, poll_s: float, gone: Callable[[], None]
    ) -> None:
        self.last = -1
        """Position of the newest item seen."""
        self.total = 0
        """Bytes collected so far."""
        self.source = source
        """What is collected, and where readers that need more find it."""
        self._poll_s = poll_s
        self._gone = gone
        self._subscription = notifier.subscribe(source.topic)
        self._listeners: set[Listener] = set()
        self._entries: deque[tuple[Entry[Item], int]] = deque()
        self._base = 0
        self._bytes = 0
        self._floor = -1
        self._heard_at = time.monotonic()
        """When something of the log was last heard of, or looked for."""
        self._looked_at = 0.0
        """When it was last looked for."""
        self._opened = asyncio.Event()
        self._failure: BaseException | None = None
        self._task = asyncio.create_task(self._run(), name=f"channel {source.topic}")

    @property
    def end(self) -> int:
        """Index that the next entry will have."""
        return self._base + len(self._entries)

    def join(self, listener: Listener) -> None:
        """From now on `listener` is told of everything new."""
        self._listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        """The last one to leave closes the channel."""
        if listener in self._listeners:
            self._listeners.discard(listener)
            if not self._listeners:
                self._subscription.close()
                self._task.cancel()
                # A task that is cancelled before its first step runs nothing of its own, no `finally` either.
                self._opened.set()
                self._gone()

    async def opened(self) -> None:
        """Wait until the channel knows where the log stands. Raises what reading it raised (NotFound)."""
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Close every listener, and so this."""
        for listener in tuple(self._listeners):
            listener.close()

    def index_after(self, position: int) -> int | None:
        """Index of the first entry with items after `position`; None when the channel does not have all of them."""
        if position < self._floor:
            return None
        for index, (entry, _) in enumerate(self._entries, self._base):
            if isinstance(entry, Batch) and entry.last > position:
                return index
        return self.end

    def since(self, index: int) -> Sequence[Entry[Item]] | None:
        """The entries from `index` on; None when some of them are no longer kept."""
        if index < self._base:
            return None
        return [entry for entry, _ in islice(self._entries, index - self._base, None)]

    async def _run(self) -> None:
        try:
            self.last = self._floor = await self.source.newest()
        except Exception as error:  # noqa: BLE001 - handed to every reader
            self._failure = error
            return
        finally:
            self._opened.set()
        while True:
            heard_at = self._heard_at
            await self._look()
            read = LOOK_PACE_S if self._looked_at > heard_at else 0.0
            await asyncio.sleep(max(self.source.pace_s, self._crowd_pace(), read))

    def _crowd_pace(self) -> float:
        """With many listeners every round costs each of them a send: rounds a few milliseconds apart carry more."""
        crowd = len(self._listeners)
        return crowd * PACE_PER_LISTENER_S if crowd >= CROWD else 0.0

    async def _look(self) -> None:
        """One round: wait for notices, take what they bring, look at the log for the rest, wake everybody."""
        notices = await self._subscription.next(self._poll_s)
        before = self.end
        try:
            await self._take(notices)
        except Exception:
            log.exception("follow.look_failed", topic=self.source.topic)
            await asyncio.sleep(self._poll_s)
        if self.end != before:
            self._forget()
            for listener in tuple(self._listeners):
                listener.nudge()

    async def _take(self, notices: Sequence[Notice]) -> None:
        if not notices:
            await self._catch_up()
            return
        items: list[Item] = []
        last, position = self.last, self.source.position
        begun = time.monotonic()
        for notice in notices:
            carried = self.source.carried(notice, last)
            if carried is None:
                if self._looked_at >= begun and not notice.events:
                    continue  # one look answers all who had called by then
                self._add(items)
                items = []
                await self._catch_up()
                last = self.last
            else:
                items.extend(carried)
                last = position(carried[-1]) if carried else last
            if notice.delta is not None:
                self._add(items)
                items = []
                self._append(Fragment(notice.delta, self.last), len(notice.delta))
        self._add(items)
        # Notices without events must not keep it from finding those that were lost.
        if time.monotonic() - self._heard_at >= self._poll_s:
            await self._catch_up()

    async def _catch_up(self) -> None:
        self._heard_at = self._looked_at = time.monotonic()
        while items := await self.source.after(self.last):
            self._add(items)
            if len(items) < PAGE and sum(map(self.source.size, items)) < PAGE_BYTES:
                return

    def _add(self, items: Sequence[Item]) -> None:
        """Append in batches of bounded size."""
        start = size = 0
        for number, item in enumerate(items, 1):
            size += self.source.size(item)
            if size >= BATCH_BYTES or number == len(items):
                self.last = self.source.position(item)
                self._heard_at = time.monotonic()
                self._append(Batch(tuple(items[start:number]), self.last), size)
                start, size = number, 0

    def _append(self, entry: Entry[Item], size: int) -> None:
        self._entries.append((entry, size))
        self._bytes += size
        self.total += size

    def _forget(self) -> None:
        """Drop what every listener has read, and the oldest above the bound."""
        taken = [listener.taken for listener in self._listeners]
        read_by_all = min((index for index in taken if index is not None), default=self._base)
        while self._entries and (self._base < read_by_all or self._bytes > RING_BYTES):
            entry, size = self._entries.popleft()
            self._base += 1
            self._bytes -= size
            if isinstance(entry, Batch):
                self._floor = entry.last
