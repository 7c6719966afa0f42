"""The notifier: lossy, but honest about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice, Notifier, Subscription

SOON = 0.01


async def heard(listener: Subscription, count: int, *, within: float = 30.0) -> list[Notice]:
    """The next notices, at least `count`; a word to look again between them is passed over."""
    found: list[Notice] = []
    async with asyncio.timeout(within):
        while len(found) < count:
            found += await listener.next(within)
    return found


async def quiet(listener: Subscription) -> Sequence[Notice]:
    """What comes before it is quiet: nothing, for a listener that nobody tells anything."""
    found: list[Notice] = []
    for _ in range(3):
        found += await listener.next(SOON)
    return found


@pytest.mark.anyio
class NotifierSuite:
    """The contract of `ports.notifier`. Wants a fixture `notifier`, started."""

    async def test_only_the_topics_asked_for_and_in_order(self, notifier: Notifier) -> None:
        listener = notifier.subscribe("a", "b")
        sent = [Notice(topic="a"), Notice(topic="c"), Notice(topic="b", delta=b"{}")]
        notifier.publish(sent)
        notifier.publish([Notice(topic="a", events=(Recorded(1, "x", b"{}"),))])
        got = await heard(listener, 3)
        assert got == [sent[0], sent[2], Notice(topic="a", events=(Recorded(1, "x", b"{}"),))]
        listener.close()

    async def test_nothing_from_before_the_subscription(self, notifier: Notifier) -> None:
        notifier.publish([Notice(topic="a")])
        listener = notifier.subscribe("a")
        assert await quiet(listener) == []
        listener.close()

    async def test_a_waiting_listener_is_woken(self, notifier: Notifier) -> None:
        listener = notifier.subscribe("a")
        waiting = asyncio.ensure_future(heard(listener, 1))
        await asyncio.sleep(0)
        notifier.publish([Notice(topic="a")])
        assert await waiting
        listener.close()

    async def test_quiet_is_an_empty_answer(self, notifier: Notifier) -> None:
        listener = notifier.subscribe("a")
        assert tuple(await listener.next(SOON)) == ()
        assert tuple(await listener.next(0)) == ()
        listener.close()

    async def test_a_listener_that_does_not_keep_up_is_told_and_goes_on(self, notifier: Notifier) -> None:
        slow, quick = notifier.subscribe("a"), notifier.subscribe("a")
        body = b"x" * 10_000
        for seq in range(1, 20_001):
            notifier.publish([Notice(topic="a", events=(Recorded(seq, "x", body),))])
            if seq % 100 == 0:
                assert len(await quick.next(30)) >= 1
        assert tuple(await slow.next(30)) == (), "lost notices look like silence: look again"
        notifier.publish([Notice(topic="a")])
        assert await heard(slow, 1) == [Notice(topic="a")]
        slow.close()
        quick.close()

    async def test_closing_ends_the_wait_and_the_listening(self, notifier: Notifier) -> None:
        listener = notifier.subscribe("a")
        waiting = asyncio.ensure_future(listener.next(30))
        await asyncio.sleep(0)
        listener.close()
        listener.close()
        assert tuple(await asyncio.wait_for(waiting, 20)) == ()
        notifier.publish([Notice(topic="a")])
        assert tuple(await asyncio.wait_for(listener.next(30), 20)) == ()

    async def test_a_cancelled_wait_loses_nothing(self, notifier: Notifier) -> None:
        listener = notifier.subscribe("a")
        waiting = asyncio.ensure_future(listener.next(30))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        notifier.publish([Notice(topic="a")])
        assert await heard(listener, 1) == [Notice(topic="a")]
        listener.close()
