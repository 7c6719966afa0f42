"""Two things at once that hardly ever meet: a new hold and the end of the former one, a claim and the shutdown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent, FakeTurn
from tests.engine.rig import Rig

from overnight.domain.backend import Capabilities
from overnight.domain.run import Run
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
    claim = server.source.claim

    async def held_up(free: int) -> tuple[Run, ...]:
        claimed = await claim(free)
        if claimed:
            claims.set()
            await go.wait()
        return claimed

    server.source.claim = held_up  # type: ignore[method-assign]
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
        backend, timing=Timing(lease_s=30.0, renew_s=0.1, grace_s=1.0, poll_s=0.1, backoff_s=0.02)
    )
    monkeypatch.setattr(FakeTurn, "renew", silent)
    runs = [await server.submit(workspace=str(server.workspace(name))) for name in ("one", "two")]
    await server.agent(backend, 2)
    holds = dict(server.worker._holds)
    before = {pk: hold.lease.trusted_until for pk, hold in holds.items()}
    await eventually(lambda: all(hold.lease.trusted_until > before[pk] + 1 for pk, hold in holds.items()))
    assert [await server.types(run) for run in runs if "run.recovered" in await server.types(run)] == []
    stuck.set()


@pytest.mark.parametrize("inject", [True, False])
async def test_a_steer_with_which_the_turn_has_begun_neither_ends_it_nor_is_told_twice(
    rig: Make, monkeypatch: pytest.MonkeyPatch, inject: bool
) -> None:
    """It was read while the former turn worked and is acted on once the next one has it in its prompt."""
    backend = fake(
        waiting, capabilities=Capabilities(interrupt=True, inject=inject, sandbox=("workspace_write",))
    )
    server = await rig(backend)
    run = await server.submit(limits={"turns": 2}, completion={"idle_turns": 0})
    await server.agent(backend)
    await eventually(lambda: server.worker._holds[run.pk].living)
    found, go = asyncio.Event(), asyncio.Event()
    workers = server.shop.uow
    read = workers.read

    async def held_up(unit: Any) -> Any:
        result = await read(unit)
        if isinstance(result, tuple) and result and getattr(result[0], "kind", None) == "steer":
            found.set()
            await go.wait()
        return result

    monkeypatch.setattr(workers, "read", held_up)
    await server.control(run, "steer", text="use tabs")
    await found.wait()
    backend.agents[0].go.set()
    second = await server.agent(backend, 2)
    await eventually(lambda: server.worker._holds[run.pk].living)
    monkeypatch.setattr(workers, "read", read)
    go.set()
    await server.control(run, "pause")
    await eventually(lambda: _nothing_asked(server, run))
    assert "use tabs" in second.start.prompt
    assert (second.alive, second.injected) == (True, [])
    second.go.set()
    await server.until(run, State.COMPLETED, State.PAUSED)
    messages = await server.store.read(lambda tx: tx.sessions.messages(run.session_pk, 10))
    assert [m.text for m in messages if m.role == "user"].count("use tabs") == 1


async def _nothing_asked(server: Rig, run: Run) -> bool:
    return not await server.store.read(lambda tx: tx.requests.pending(run.pk))


async def test_runs_never_overlap_however_directories_are_moved_about(rig: Make) -> None:
    """A queued path that becomes a link to another run's workspace; a living run's own path that is made anew."""
    backend = fake(waiting)
    server = await rig(backend)
    one, two = server.workspace("one"), server.workspace("two")
    first = await server.submit(workspace=str(one), completion={"idle_turns": 0})
    await server.agent(backend)
    before = await server.submit(workspace=str(two), mode="oneshot")
    await server.agent(backend, 2)
    linked = await server.submit(workspace=str(two), mode="oneshot")
    two.rename(two.with_name("moved"))
    two.symlink_to(one)
    backend.agents[1].go.set()
    await server.until(before, State.COMPLETED)

    async def waits_for_workspace(run: Any) -> bool:
        found = await server.run(run)
        return (
            found.state is State.QUEUED
            and found.waiting_for is not None
            and found.waiting_for.kind == "workspace"
        )

    await eventually(lambda: waits_for_workspace(linked))
    assert len(backend.agents) == 2, "nothing works in `one` beside its run"

    one.rename(one.with_name("old"))
    one.mkdir()
    beside = await server.submit(workspace=str(one), mode="oneshot")
    await server.agent(backend, 3)
    assert backend.agents[2].start.run_id in {beside.id, linked.id}, (
        "another directory, though of the same name"
    )
    backend.agents[0].go.set()
    await eventually(lambda: waits_for_workspace(first))
    assert len(backend.agents) == 3, "the next turn of the first run would work in the new directory"
    backend.agents[2].go.set()
    await server.agent(backend, 4)
    assert len([agent for agent in backend.agents if agent.alive]) == 1
    await server.control(first, "cancel")
    for agent in backend.agents:
        agent.go.set()
    backend.script = lambda agent: asyncio.sleep(0)
    await server.until(beside, State.COMPLETED)
    await server.until(linked, State.COMPLETED)
