"""Notifiers that reach other processes: nothing twice, nothing out of order, and nothing lost without a word."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from overnight.domain.event import Recorded
from overnight.ids import new_run_id, new_session_id
from overnight.ports.notifier import CHANGES, QUEUE, Notice, Notifier, requests_topic, stream_topic
from overnight.testing.conformance.notices import heard, quiet
from overnight.testing.signals import eventually


@dataclass(slots=True, kw_only=True)
class Relays:
    """Two notifiers that stand for two processes, on one carrier."""

    here: Notifier
    there: Notifier
    carries_events: bool
    """Whether the bytes of events travel, or only the word that there are some."""
    carries_deltas: bool
    traces: Callable[[], Awaitable[object]]
    """What the carrier holds because of those who listen: equal before and after, when they leave nothing behind."""


@dataclass(slots=True)
class Log:
    """The truth about one stream, as the database would have it."""

    topic: str = field(default_factory=lambda: stream_topic(new_run_id(0)))
    events: list[Recorded] = field(default_factory=list)

    def append(self, notifier: Notifier, count: int = 1, *, size: int = 20) -> None:
        """Record some events and tell of them."""
        first = len(self.events) + 1
        new = [
            Recorded(seq, "message.completed", b'{"n":%*d}' % (size, seq))
            for seq in range(first, first + count)
        ]
        self.events += new
        notifier.publish([Notice(topic=self.topic, events=tuple(new))])


class Reader:
    """Follows a log as the engine does, but without a slow poll: whatever is lost silently stays missing."""

    def __init__(self, notifier: Notifier, log: Log) -> None:
        self.got: list[Recorded] = []
        self.looks = 0
        """How often the log had to be read."""
        self.carried = 0
        """Events that the notices brought."""
        self.seqs: list[int] = []
        """Every seq that was brought, needed or not."""
        self._log = log
        self._subscription = notifier.subscribe(log.topic)
        self._task = asyncio.create_task(self._follow())

    async def reaches(self, seq: int) -> None:
        """Wait until it has everything up to `seq`; then it must have it all, once and in order."""
        await eventually(lambda: len(self.got) >= seq, within=60, what=f"event {seq} at a reader")
        assert self.got == self._log.events[: len(self.got)]

    async def is_carried_to(self, notifier: Notifier) -> None:
        """Tell of events until one of them is brought by its notice: from then on, nothing has to be looked for."""
        looks = -1
        while looks != self.looks:
            looks = self.looks
            self._log.append(notifier)
            await self.reaches(len(self._log.events))

    async def close(self) -> None:
        """Stop."""
        self._subscription.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            notices = await self._subscription.next(60)
            if not notices:
                self._look()
            for notice in notices:
                self._take(notice)

    def _take(self, notice: Notice) -> None:
        seqs = [event.seq for event in notice.events]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True, "a hole inside a notice"
        self.seqs += seqs
        if notice.delta is None and (not seqs or seqs[0] > len(self.got) + 1):
            self._look()
            return
        new = notice.events[len(self.got) + 1 - seqs[0] :] if seqs else ()
        self.carried += len(new)
        self.got += new

    def _look(self) -> None:
        self.looks += 1
        self.got += self._log.events[len(self.got) :]


@pytest.mark.anyio
class RelaySuite:
    """What notifiers between processes promise besides `NotifierSuite`. Wants a fixture `relays`."""

    async def test_others_hear_what_they_ask_for(self, relays: Relays) -> None:
        listener = relays.there.subscribe(QUEUE, requests_topic(7))
        session = relays.there.subscribe(stream_topic(new_session_id(0)))
        await quiet(session)
        relays.here.publish([Notice(topic=CHANGES), Notice(topic=QUEUE), Notice(topic=requests_topic(8))])
        relays.here.publish([Notice(topic=requests_topic(7))])
        found: set[str] = set()
        while found != {QUEUE, requests_topic(7)}:
            found |= {notice.topic for notice in await heard(listener, 1)}
        assert await quiet(session) == []
        listener.close()
        session.close()

    async def test_every_event_arrives_or_is_known_to_be_missing(self, relays: Relays) -> None:
        log, dice = Log(), random.Random(4)  # noqa: S311 -- dice
        reader = Reader(relays.there, log)
        if relays.carries_events:
            await reader.is_carried_to(relays.here)
        while len(log.events) < 3000:
            log.append(relays.here, dice.randrange(1, 40))
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
        await reader.reaches(len(log.events))
        if relays.carries_events:
            assert reader.seqs == sorted(set(reader.seqs)), "in order, and none twice"
            assert reader.carried > 500
        else:
            assert reader.seqs == []
        await reader.close()

    async def test_what_is_carried_needs_no_look(self, relays: Relays) -> None:
        log = Log()
        reader = Reader(relays.there, log)
        if relays.carries_events:
            await reader.is_carried_to(relays.here)
        looks = reader.looks
        for _ in range(50):
            log.append(relays.here)
            await reader.reaches(len(log.events))
        assert (reader.looks == looks) == relays.carries_events
        await reader.close()

    async def test_two_writers_of_one_stream(self, relays: Relays) -> None:
        log, dice = Log(), random.Random(5)  # noqa: S311 -- dice
        readers = [Reader(relays.here, log), Reader(relays.there, log)]
        for _ in range(200):
            log.append(dice.choice([relays.here, relays.there]), dice.randrange(1, 4))
            if dice.random() < 0.3:
                await asyncio.sleep(0.001)
        log.append(relays.here)
        log.append(relays.there)
        for reader in readers:
            await reader.reaches(len(log.events))
            await reader.close()

    async def test_the_publishers_own_listeners_hear_everything_once(self, relays: Relays) -> None:
        log = Log()
        own, other = relays.here.subscribe(log.topic, QUEUE), Reader(relays.there, log)
        await quiet(own)
        for _ in range(100):
            log.append(relays.here)
        relays.here.publish([Notice(topic=QUEUE)])
        got = await heard(own, 101)
        await other.reaches(100)
        got += await quiet(own)
        assert [event for notice in got for event in notice.events] == log.events
        assert [notice.topic for notice in got].count(QUEUE) == 1
        own.close()
        await other.close()

    async def test_nothing_from_before_a_subscription_elsewhere(self, relays: Relays) -> None:
        log = Log()
        witness = Reader(relays.there, log)
        log.append(relays.here, 5)
        await witness.reaches(5)
        await witness.close()
        late = relays.there.subscribe(log.topic)
        assert [event for notice in await quiet(late) for event in notice.events] == []
        late.close()

    async def test_big_events(self, relays: Relays) -> None:
        log = Log()
        reader = Reader(relays.there, log)
        for size in (10, 100_000, 10, 1_000_000, 10, 3_000_000, 10):
            log.append(relays.here, size=size)
        await reader.reaches(7)
        await reader.close()

    async def test_deltas_are_carried_or_not_but_never_in_part(self, relays: Relays) -> None:
        log = Log()
        listener, reader = relays.there.subscribe(log.topic), Reader(relays.there, log)
        if relays.carries_deltas:
            await reader.is_carried_to(relays.here)
        await quiet(listener)
        deltas = [b'{"type":"message.delta","data":{"text":"%d"}}' % number for number in range(50)]
        for delta in deltas:
            relays.here.publish([Notice(topic=log.topic, delta=delta)])
        if relays.carries_deltas:
            got: list[bytes] = []
            while len(got) < len(deltas):
                got += [one.delta for one in await heard(listener, 1) if one.delta is not None]
            assert got == deltas
        else:
            assert await quiet(listener) == []
        listener.close()
        await reader.close()

    async def test_thousands_of_streams(self, relays: Relays) -> None:
        logs = [Log() for _ in range(2000)]
        readers = [Reader(relays.there, log) for log in logs]
        await quiet(relays.there.subscribe("nothing"))
        for _ in range(2):
            for log in logs:
                log.append(relays.here)
        for reader in readers:
            await reader.reaches(2)
        for reader in readers:
            await reader.close()

    async def test_listeners_that_come_and_go_leave_nothing_behind(self, relays: Relays) -> None:
        before = await relays.traces()
        for number in range(300):
            listeners = [relays.there.subscribe(Log().topic, QUEUE, requests_topic(number)) for _ in range(5)]
            if number % 50 == 0:
                await listeners[0].next(0.002)
            for listener in listeners:
                listener.close()
        log = Log()
        reader = Reader(relays.there, log)
        log.append(relays.here)
        await reader.reaches(1)
        await reader.close()

        async def gone() -> bool:
            return await relays.traces() == before

        await eventually(gone, what="no trace of the listeners")

    async def test_a_slow_listener_is_told_and_the_others_lose_nothing(self, relays: Relays) -> None:
        log = Log()
        slow, reader = relays.there.subscribe(log.topic), Reader(relays.there, log)
        await quiet(slow)
        for _ in range(25):
            log.append(relays.here, 50, size=4000)
            await reader.reaches(len(log.events))
        last = 0
        async with asyncio.timeout(60):
            while notices := await slow.next(0):
                seqs = [event.seq for notice in notices for event in notice.events]
                last = seqs[-1] if seqs else last
        assert last < len(log.events), "it was told to look again, and not left waiting with a part"
        slow.close()
        await reader.close()
