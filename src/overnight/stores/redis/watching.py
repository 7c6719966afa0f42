"""Reading the streams that somebody here follows: all of them by one connection, from the moment they are watched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from redis.exceptions import ResponseError

from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.redis.link import Address, Link, Reply
from overnight.stores.redis.resp import Keys, bulk, pack
from overnight.stores.relay.figures import Figures
from overnight.stores.relay.line import Health, LineLost

BLOCK_MS: Final = 2000
MOST_ENTRIES: Final = 1000
"""Entries that one read brings of all streams together, about."""
PACE_S: Final = 0.001
PACE_PER_STREAM_S: Final = 0.000003
"""Shortest time between two reads that brought something: a read names every stream, which costs both sides."""
_BEGINNING: Final = b"0-0"


class Watch:
    """One stream that is watched: how far it was read, and the newest seq that was delivered here."""

    __slots__ = ("key", "last", "packed_key", "position", "topic")

    def __init__(self, topic: str, key: bytes) -> None:
        self.topic = topic
        self.key = key
        self.packed_key = bulk(key)
        self.position: bytes | None = None
        """Id of the last entry read; None: not known yet, or the key is not a stream."""
        self.last = 0


class Watching:
    """The watched streams, and the connection that reads them."""

    def __init__(self, address: Address, keys: Keys, by: str, hub: InprocNotifier, figures: Figures) -> None:
        self._address = address
        self._keys = keys
        self._by = by.encode()
        self._hub = hub
        self._figures = figures
        self._bell = Watch("", keys.bell(by))
        self._watches: dict[str, Watch] = {}
        self._by_key: dict[bytes, Watch] = {}
        self._fresh: dict[str, Watch] = {}
        self._read_at = 0.0
        self.is_blocked = False
        """Whether a read waits that does not know of the newest watches: ring the bell."""

    def watch(self, topic: str) -> None:
        """Read this stream too, from now on."""
        watch = Watch(topic, self._keys.events(topic))
        self._watches[topic] = self._by_key[watch.key] = watch
        self._fresh[topic] = watch

    def unwatch(self, topic: str) -> None:
        """Read it no longer."""
        self._fresh.pop(topic, None)
        watch = self._watches.pop(topic, None)
        if watch is not None:
            del self._by_key[watch.key]

    def published(self, notices: Sequence[Notice]) -> None:
        """What was delivered here without us is not to be delivered again, nor what is older."""
        for notice in notices:
            if notice.events and (watch := self._watches.get(notice.topic)) is not None:
                watch.last = max(watch.last, notice.events[-1].seq)

    @property
    def count(self) -> int:
        """Streams that are watched."""
        return len(self._watches)

    async def session(self, health: Health) -> None:
        """Connect and read until the connection is lost: LineLost."""
        link = await Link.open(self._address)
        try:
            self._fresh = {"": self._bell, **self._watches}
            for watch in self._fresh.values():
                watch.position = None
            await self._settle(link)
            await self._read(link, 0)
            health.up("reading")
            while True:
                await self._settle(link)
                await self._read(link, BLOCK_MS)
        finally:
            self.is_blocked = False
            await link.close()

    async def _settle(self, link: Link) -> None:
        """Find out where the streams that are newly watched end, and have their listeners look at the log once."""
        while self._fresh:
            fresh = [self._fresh.pop(topic) for topic in tuple(self._fresh)[:1000]]
            asked = b"".join(pack(b"XREVRANGE", watch.key, b"+", b"-", b"COUNT", b"1") for watch in fresh)
            for watch, found in zip(fresh, await link.ask(asked, len(fresh)), strict=True):
                if isinstance(found, ResponseError):
                    if watch is self._bell:  # which is ours alone: no stream could be read
                        raise LineLost(self._address.said(found))
                    self._figures.add("missed")
                else:
                    watch.position = bytes(found[0][0]) if found else _BEGINNING
            self._hub.look_again(watch.topic for watch in fresh)

    async def _read(self, link: Link, block_ms: int) -> None:
        readable = [watch for watch in self._watches.values() if watch.position is not None]
        self.is_blocked = True
        (reply,) = await link.ask(self._request(readable, block_ms), 1, patience_s=block_ms / 1000)
        self.is_blocked = False
        if isinstance(reply, ResponseError):
            raise LineLost(self._address.said(reply))
        if reply:
            self._deliver(reply)
            await self._pace(PACE_S + len(readable) * PACE_PER_STREAM_S)

    async def _pace(self, least: float) -> None:
        """After a quiet time the next read comes at once: the first may have brought only the first of many."""
        now = asyncio.get_running_loop().time()
        pause, self._read_at = self._read_at + least - now, now
        if pause > 0:
            await asyncio.sleep(pause)

    def _request(self, readable: Sequence[Watch], block_ms: int) -> bytes:
        """Everything that is new; where there is nothing, what comes within `block_ms`."""
        watches = [self._bell, *readable]
        each = max(10, MOST_ENTRIES // len(watches))
        block = bulk(b"BLOCK") + bulk(b"%d" % block_ms) if block_ms else b""
        return b"*%d\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n%b%b$7\r\nSTREAMS\r\n%b%b" % (
            4 + 2 * len(watches) + (2 if block_ms else 0),
            bulk(b"%d" % each),
            block,
            b"".join([watch.packed_key for watch in watches]),
            b"".join([bulk(watch.position or _BEGINNING) for watch in watches]),
        )

    def _deliver(self, reply: Reply) -> None:
        for key, entries in reply:
            watch = self._bell if key == self._bell.key else self._by_key.get(key)
            if watch is None or not entries:  # nobody follows it any more
                continue
            watch.position = entries[-1][0]
            if watch is not self._bell:
                self._hub.publish(list(self._notices(watch, entries)))

    def _notices(self, watch: Watch, entries: Sequence[Reply]) -> Iterator[Notice]:
        """What is new in order of seq; a new notice after every hole, and an empty one where a body is missing."""
        found = [event for entry in entries if (event := self._event(entry)) is not None]
        found.sort(key=lambda event: event.seq)
        run: list[Recorded] = []
        for event in found:
            if event.seq <= watch.last:
                continue
            self._figures.add("heard")
            if (run and event.seq != run[-1].seq + 1) or not event.body:
                if run:
                    yield Notice(topic=watch.topic, events=tuple(run))
                run = []
            if watch.last and event.seq != watch.last + 1:
                self._figures.add("missed", event.seq - watch.last - 1)
            watch.last = event.seq
            if event.body:
                run.append(event)
            else:
                yield Notice(topic=watch.topic)
        if run:
            yield Notice(topic=watch.topic, events=tuple(run))

    def _event(self, entry: Reply) -> Recorded | None:
        """What an entry of another process holds; anything else that lies in the stream is counted."""
        fields = entry[1]
        try:
            by, seq, type, body = fields[1::2]
            if by == self._by:
                return None
            return Recorded(int(seq), type.decode(), body)
        except (TypeError, ValueError):
            self._figures.add("missed")
            return None
