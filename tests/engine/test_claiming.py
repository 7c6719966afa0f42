"""When a worker asks for runs: when there may be some, and room for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import FAST, Rig

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
SLOW_POLL = replace(FAST, poll_s=600.0)


def counted(server: Rig) -> list[int]:
    """With how much room the worker has asked, from now on."""
    asked: list[int] = []
    claim = server.source.claim

    async def claiming(free: int) -> tuple[Run, ...]:
        asked.append(free)
        return await claim(free)

    server.source.claim = claiming  # type: ignore[method-assign]
    return asked


async def test_nobody_asks_because_a_run_has_ended_where_there_was_room_before(rig: Make) -> None:
    server = await rig(fake(), timing=SLOW_POLL)
    await server.until(await server.submit(mode="oneshot", workspace=None), State.COMPLETED)
    await eventually(lambda: server.worker.busy == 0)
    asked = counted(server)
    for count in range(1, 6):
        await server.until(await server.submit(mode="oneshot", workspace=None), State.COMPLETED)
        await eventually(lambda: server.worker.busy == 0)
        assert asked == [8] * count


async def test_whoever_was_full_asks_as_soon_as_there_is_room(rig: Make) -> None:
    """The slow poll would come too late."""
    server = await rig(fake(), slots=2, timing=SLOW_POLL)
    runs = [await server.submit(mode="oneshot", workspace=None) for _ in range(9)]
    for run in runs:
        await server.until(run, State.COMPLETED)


async def test_room_that_was_made_while_runs_were_waited_for_is_used(rig: Make) -> None:
    """A claim is under way for one slot; meanwhile another one becomes free, and more runs wait than it was for."""
    go_on = asyncio.Event()

    async def waiting(agent: FakeAgent) -> None:
        await go_on.wait()

    slow, quick = fake(waiting, name="slow"), fake(name="quick")
    server = await rig(slow, quick, slots=2, timing=SLOW_POLL)
    first = await server.submit(backend="slow", mode="oneshot", workspace=None)
    await server.until(first, State.RUNNING)
    claim, held_up = server.source.claim, asyncio.Event()

    async def slowly(free: int) -> tuple[Run, ...]:
        found = await claim(free)
        go_on.set()
        await held_up.wait()
        return found

    server.source.claim = slowly  # type: ignore[method-assign]
    runs = [await server.submit(backend="quick", mode="oneshot", workspace=None) for _ in range(3)]
    await server.until(first, State.COMPLETED)
    await eventually(lambda: server.worker.busy == 0)
    held_up.set()
    for run in runs:
        await server.until(run, State.COMPLETED)
