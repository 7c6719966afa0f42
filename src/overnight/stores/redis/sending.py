"""Telling other processes: many notices in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError

from overnight.domain.event import FINAL_TYPES, Recorded
from overnight.ports.notifier import STREAM
from overnight.stores.redis.link import Address, Link, Reply
from overnight.stores.redis.resp import FINAL_TTL_S, Adding, Keys, expire, pack, publish, waking
from overnight.stores.relay.figures import Figures
from overnight.stores.relay.line import Health, LineLost
from overnight.stores.relay.outbox import Batch, Outbox

IDLE_S: Final = 5.0
"""After so long without anything to send the bell is rung, which shows whether the server answers and takes writes."""
MOST_NOTICES: Final = 500
MOST_BYTES: Final = 1024 * 1024
WAKES: Final = "the wake-up channel"
BELL: Final = "our own bell"
"""What replies are about that are about no stream."""
_BELL_TTL_S: Final = 60
_REFUSED_PAUSE_S: Final = 1.0
_AWAY: Final = (ReadOnlyError, MasterDownError)
"""Refusals that another connection may mend: the server is not, or no longer, the one to write to."""


class Sending:
    """The connection over which this process speaks."""

    def __init__(
        self, address: Address, keys: Keys, by: str, outbox: Outbox, figures: Figures, *,
        length: int, ttl_s: int,
    ) -> None:  # fmt: skip
        self._address = address
        self._keys = keys
        self._by = by
        self._outbox = outbox
        self._figures = figures
        self._adding = Adding(length=length, by=by)
        self._ttl_s = ttl_s
        self._bell = keys.bell(by)
        self._ring = False

    def ring(self) -> None:
        """Have our own waiting read come back: it does not know what is watched since it began."""
        if not self._ring:
            self._ring = True
            self._outbox.nudge()

    async def session(self, health: Health) -> None:
        """Connect and send until the connection is lost: LineLost."""
        link = await Link.open(self._address)
        try:
            self._outbox.open()
            health.up("sending")
            self.ring()
            while True:
                batch = await self._outbox.take(IDLE_S, most=MOST_NOTICES, most_bytes=MOST_BYTES)
                if batch is None:
                    self.ring()
                else:
                    await self._send(link, batch, health)
        finally:
            self._outbox.shut()
            await link.close()

    async def forget_bell(self) -> None:
        """Take our own key away, where that is quickly done."""
        link = await Link.open(self._address)
        try:
            await link.ask(pack(b"DEL", self._bell), 1)
        finally:
            await link.close()

    async def _send(self, link: Link, batch: Batch, health: Health) -> None:
        trip = _RoundTrip()
        try:
            self._pack(trip, batch)
            replies = await link.ask(b"".join(trip.packed), len(trip.topics))
        except BaseException:
            self._outbox.failed(batch)
            raise
        refused = trip.refused(replies)
        if refused:
            await self._refused(batch, refused, health)
        else:
            self._figures.add("published", len(batch.notices))
            if trip.adds:
                health.up("accepting")

    def _pack(self, trip: _RoundTrip, batch: Batch) -> None:
        if self._ring:
            self._ring, trip.adds = False, True
            trip.add(BELL, pack(b"XADD", self._bell, b"MAXLEN", b"1", b"*", b"b", b"1"))
            trip.add(BELL, expire(self._bell, _BELL_TTL_S))
        streams: dict[str, list[Recorded]] = {}
        wakes: dict[str, None] = dict.fromkeys(batch.owed)
        told: list[tuple[str, bytes]] = []
        for notice in batch.notices:
            is_stream = notice.topic.startswith(STREAM)
            if notice.events and is_stream:
                streams.setdefault(notice.topic, []).extend(notice.events)
            elif notice.delta is None:
                wakes[notice.topic] = None
            if notice.delta is not None:
                if is_stream:
                    said = self._by.encode() + notice.delta
                    trip.add(notice.topic, publish(self._keys.deltas(notice.topic), said))
                else:
                    told.append((notice.topic, notice.delta))
        for topic, events in streams.items():
            self._pack_stream(trip, topic, events)
        for payload in waking(self._by, tuple(wakes), told, look_again=batch.owes_all):
            trip.add(WAKES, publish(self._keys.wake, payload))

    def _pack_stream(self, trip: _RoundTrip, topic: str, events: Sequence[Recorded]) -> None:
        key, trip.adds = self._keys.events(topic), True
        trip.add(topic, self._adding.events(key, events), len(events))
        is_over = any(event.type in FINAL_TYPES for event in events)
        trip.add(topic, expire(key, FINAL_TTL_S if is_over else self._ttl_s))

    async def _refused(self, batch: Batch, refused: dict[str, ResponseError], health: Health) -> None:
        """Wake-ups say what streams could not; where not even those are taken, there is time until the next attempt.

        A key that somebody else has spoilt concerns its own stream: nothing is wrong with the server.
        """
        self._outbox.refused(batch, refused.keys(), wakes=WAKES in refused)
        refusal = next((one for one in refused.values() if not self._is_of_a_key(one)), None)
        if refusal is None:
            return
        health.down("accepting", self._address.said(refusal))
        if isinstance(refusal, _AWAY):
            raise LineLost(self._address.said(refusal))
        if WAKES in refused:
            await asyncio.sleep(_REFUSED_PAUSE_S)

    def _is_of_a_key(self, refusal: ResponseError) -> bool:
        return self._address.said(refusal).startswith("WRONGTYPE")


class _RoundTrip:
    """Commands that go out together, and whose topic each of their replies is about."""

    __slots__ = ("adds", "packed", "topics")

    def __init__(self) -> None:
        self.adds = False
        """Whether there is anything among them that a server which takes no writes would refuse."""
        self.packed: list[bytes] = []
        self.topics: list[str] = []

    def add(self, topic: str, packed: bytes, replies: int = 1) -> None:
        """Some commands about a topic."""
        self.packed.append(packed)
        self.topics += [topic] * replies

    def refused(self, replies: Sequence[Reply]) -> dict[str, ResponseError]:
        """The topics of which something was refused, and why."""
        return {
            topic: reply
            for topic, reply in zip(self.topics, replies, strict=True)
            if isinstance(reply, ResponseError)
        }
