"""Two things at once that hardly ever meet: a new hold and the end of the former one, a claim and the shutdown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent, FakeTurn

from overnight.domain.states import State
from overnight.engine.policy import Timing
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def waiting(agent: FakeAgent) -> None:
    agent.say("here")
    await agent.go.wait()


async def test_a_run_resumed_before_its_former_hold_is_cleared_away_keeps_its_lease(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared, released = asyncio.Event(), FakeTurn.release

    async def slowly(turn: FakeTurn) -> None:
        await cleared.wait()
        await released(turn)

    backend = fake(waiting)
    server = await rig(backend)
    run = await server.submit()
    await server.agent(backend)
    monkeypatch.setattr(FakeTurn, "release", slowly)
    await server.control(run, "pause", when="now")
    await server.until(run, State.PAUSED)
    await server.control(run, "resume")
    second = await server.agent(backend, 2)
    assert (server.worker.busy, server.worker.holds(run.pk)) == (2, True)
    cleared.set()
    await eventually(lambda: server.worker.busy == 1)
    assert server.worker.holds(run.pk), "the end of the former hold is not the end of the new one"
    known = second.renewed
    await eventually(lambda: second.renewed > known)
    await server.control(run, "cancel")
    await server.until(run, State.CANCELLED)
    await eventually(lambda: server.worker.busy == 0)


async def test_a_claim_under_way_at_the_shutdown_leaves_no_agent(rig: Make, tmp_path: Path) -> None:
    backend = fake(waiting)
    server = await rig(backend, root=tmp_path)
    first = await server.submit(workspace=str(server.workspace("one")))
    await server.agent(backend)
    claims, go = asyncio.Event(), asyncio.Event()
    write = server.store.write

    async def held_up(unit: Any, *, urgent: bool = False) -> Any:
        result = await write(unit, urgent=urgent)
        if isinstance(result, tuple) and result and getattr(result[0], "state", None) is State.RUNNING:
            claims.set()
            await go.wait()
        return result

    server.store.write = held_up  # type: ignore[method-assign]
    second = await server.submit(workspace=str(server.workspace("two")))
    await claims.wait()
    ending = asyncio.ensure_future(server.supervisor.shutdown())
    await eventually(lambda: server.worker._draining)
    go.set()
    await ending
    assert [agent.alive for agent in backend.agents] == [False] * len(backend.agents)
    for run in (first, second):
        found = await server.run(run)
        assert (found.state, found.attempt) == (State.QUEUED, 1)
    await server.close()


async def test_a_keeper_that_stands_still_costs_no_other_run_its_lease(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = asyncio.Event()

    async def silent(turn: FakeTurn, sent_at: float, lease_s: float) -> None:
        if turn._agent is backend.agents[0]:
            await stuck.wait()

    backend = fake(waiting)
    server = await rig(
        backend, timing=Timing(lease_s=1.0, renew_s=0.1, grace_s=1.0, poll_s=0.1, backoff_s=0.02)
    )
    monkeypatch.setattr(FakeTurn, "renew", silent)
    runs = [await server.submit(workspace=str(server.workspace(name))) for name in ("one", "two")]
    await server.agent(backend, 2)
    holds = dict(server.worker._holds)
    before = {pk: hold.lease.trusted_until for pk, hold in holds.items()}
    await eventually(lambda: all(hold.lease.trusted_until > before[pk] + 1 for pk, hold in holds.items()))
    assert [await server.types(run) for run in runs if "run.recovered" in await server.types(run)] == []
    stuck.set()
