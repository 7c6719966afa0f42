"""The injected clock and the test signals."""

from __future__ import annotations

import asyncio
import time

import pytest

from overnight.testing.clocks import ManualClock
from overnight.testing.signals import Signals, eventually, wait_until

pytestmark = pytest.mark.anyio


async def test_sleepers_wake_in_the_order_in_which_they_are_due() -> None:
    clock, woken = ManualClock(wall_ms=0, boot=0), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.boot(), clock.wall_ms()))

    tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (3, 1, 2, 10)]
    await clock.asleep(4)
    await clock.advance(5)
    assert woken == [(1, 1, 1000), (2, 2, 2000), (3, 3, 3000)]
    assert (clock.boot(), clock.sleepers) == (5, 1)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert clock.sleepers == 0


async def test_who_sleeps_again_while_time_passes_is_woken_again() -> None:
    clock, ticks = ManualClock(), 0

    async def ticking() -> None:
        nonlocal ticks
        while True:
            await clock.sleep(1)
            ticks += 1

    task = asyncio.ensure_future(ticking())
    await clock.asleep()
    await clock.advance(5.5)
    assert ticks == 5
    task.cancel()


async def test_the_wall_clock_jumps_alone_and_a_suspension_wakes_nobody() -> None:
    clock = ManualClock(wall_ms=1000, boot=10)
    clock.jump_wall(-500)
    assert (clock.wall_ms(), clock.boot()) == (500, 10)
    task = asyncio.ensure_future(clock.sleep(1))
    await clock.asleep()
    clock.suspend(60)
    await asyncio.sleep(0)
    assert (task.done(), clock.wall_ms(), clock.boot()) == (False, 60_500, 70)
    await clock.advance(0)
    assert task.done()


async def test_a_point_is_awaited_and_held() -> None:
    signals, passed = Signals(), []
    signals.hold("door")

    async def walk() -> None:
        await signals.passing("door", "me")
        passed.append("through")

    task = asyncio.ensure_future(walk())
    assert await signals.reached("door") == "me"
    assert passed == []
    signals.release("door")
    await task
    assert passed == ["through"]


async def test_what_does_not_come_is_said() -> None:
    with pytest.raises(AssertionError, match="'door' was reached 0 times"):
        await Signals().reached("door", within=0.01)
    with pytest.raises(AssertionError, match=r"not within 0.01 s: the moon \(last answer 0\)"):
        await eventually(lambda: 0, within=0.01, what="the moon")
    with pytest.raises(AssertionError, match="the condition"):
        wait_until(lambda: None, within=0.01)


async def test_eventually_takes_plain_and_async_predicates() -> None:
    began = time.monotonic()

    async def later() -> str:
        return "yes" if time.monotonic() > began + 0.02 else ""

    assert await eventually(later) == "yes"
    assert await eventually(lambda: 7) == 7
    assert wait_until(lambda: [1]) == [1]
