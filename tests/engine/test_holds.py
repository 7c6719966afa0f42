"""Crashes, lost leases, shutdown and handover: who may advance a run, and what becomes of a living turn."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent, FakeBackend
from tests.engine.rig import FAST, Rig

from overnight.clock import SystemClock
from overnight.domain.states import State, TurnState
from overnight.domain.update import UsageReported
from overnight.domain.values import Usage
from overnight.engine import worker
from overnight.engine.maintenance.rescuer import Rescuer
from overnight.errors import LeaseLost
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


def lines(count: int):  # type: ignore[no-untyped-def]
    async def script(agent: FakeAgent) -> None:
        for n in range(count):
            agent.print(f"line {n}")
            await agent.work(0.001)
        agent.say("done")

    return script


async def waiting(agent: FakeAgent) -> None:
    agent.say(f"turn {agent.start.turn} attempt {agent.start.attempt}")
    agent.use(10)
    agent.write("a.txt", "x")
    await agent.go.wait()


async def begun(server: Rig, backend: FakeBackend, count: int = 1) -> FakeAgent:
    agent = await server.agent(backend, count)
    run_pk = next(iter(server.worker._holds))

    async def started() -> bool:
        turn = await server.store.read(lambda tx: tx.turns.last(run_pk))
        return turn is not None and turn.items > 0

    await eventually(started)
    assert isinstance(agent, FakeAgent)
    return agent


async def said_more(agent: FakeAgent, count: int) -> None:
    wanted = min(len(agent.updates) + count, 600)
    await eventually(lambda: len(agent.updates) >= wanted, every=0.001)


async def printed(server: Rig, run) -> list[str]:  # type: ignore[no-untyped-def]
    return "".join(data["text"] for data in await server.data(run, "output.recorded")).splitlines()


async def test_twenty_crashes_lose_and_repeat_nothing(rig: Make, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    backend = fake(lines(600))
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot")
    await server.agent(backend)
    for _ in range(20):
        before = await server.events(run)
        await said_more(backend.agents[0], chance.randrange(25))
        await server.crash()
        server = await rig(backend, root=tmp_path)
        assert (await server.events(run))[: len(before)] == before
    ended = await server.until(run, State.COMPLETED)
    assert (ended.attempt, ended.turn, len(backend.agents)) == (1, 1, 1)
    assert await printed(server, run) == [f"line {n}" for n in range(600)]
    recovered = await server.data(run, "run.recovered")
    assert recovered
    assert all(data["adopted"] and data["from_attempt"] == 1 for data in recovered)
    assert (await server.types(run)).count("turn.started") == 1


async def test_usage_items_and_message_survive_a_crash(rig: Make, tmp_path: Path) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.emit(UsageReported(usage=Usage(input=70), source="backend"))
        agent.say("first")
        await agent.go.wait()

    backend = fake(script)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot")
    agent = await begun(server, backend)
    await server.crash()
    server = await rig(backend, root=tmp_path)
    await server.data(run, "run.recovered")
    agent.go.set()
    ended = await server.until(run, State.COMPLETED)
    turn = (await server.turns(run))[0]
    assert (ended.stats.usage.total, turn.items, turn.last_message) == (70, 1, "first")
    assert server.meter.turns == [("fake", "completed", 70)]
    assert server.meter.writes


async def test_a_dead_agent_abandons_the_turn_which_is_done_again(rig: Make, tmp_path: Path) -> None:
    backend = fake(waiting)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot")
    await begun(server, backend)
    await server.crash()
    backend.kill()
    server = await rig(backend, root=tmp_path)
    (await server.agent(backend, 2)).go.set()
    ended = await server.until(run, State.COMPLETED)
    assert (ended.turn, ended.attempt) == (1, 2)
    assert "done again" in backend.agents[1].start.prompt
    types = [t for t in await server.types(run) if t in {"turn.abandoned", "run.recovered", "turn.started"}]
    assert types == ["turn.started", "turn.abandoned", "run.recovered", "turn.started"]
    assert ("fake", "abandoned", 0) in server.meter.turns
    assert (await server.data(run, "run.recovered"))[0] == {
        "from_attempt": 1, "reason": "server_gone", "adopted": False,
    }  # fmt: skip
    assert [t.state for t in await server.turns(run)] == [TurnState.ABANDONED, TurnState.COMPLETED]


async def test_a_turn_that_is_always_abandoned_exhausts_its_attempts(rig: Make, tmp_path: Path) -> None:
    backend = fake(waiting)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot", limits={"attempts": 2})
    for count in (1, 2):
        await begun(server, backend, count)
        await server.crash()
        backend.kill()
        server = await rig(backend, root=tmp_path)
    ended = await server.until(run, State.FAILED)
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == ("attempts_exhausted", 2)


async def test_a_pause_and_a_cancel_survive_the_crash(rig: Make, tmp_path: Path) -> None:
    backend = fake(waiting)
    server = await rig(backend, root=tmp_path)
    paused = await server.submit(mode="oneshot", workspace=None)
    await begun(server, backend)
    await server.control(paused, "pause")
    cancelled = await server.submit(mode="oneshot", workspace=None)
    await server.agent(backend, 2)
    await server.until(cancelled, State.RUNNING)
    crash = asyncio.ensure_future(server.crash())
    await crash
    server = await rig(backend, root=tmp_path, supervise=False)
    await server.control(cancelled, "cancel")
    assert (await server.run(cancelled)).state is State.CANCELLING
    await server.supervisor.start()
    ended = await server.until(cancelled, State.CANCELLED)
    assert ended.cancellation is not None
    assert (ended.cancellation.steps, ended.cancellation.reason) == (("interrupt",), "manual")
    assert (await server.run(paused)).state is State.PAUSING
    backend.agents[0].go.set()
    await server.until(paused, State.COMPLETED)


async def test_a_cancel_of_an_agent_that_died_meanwhile_is_confirmed(rig: Make, tmp_path: Path) -> None:
    backend = fake(waiting)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot")
    await begun(server, backend)
    await server.crash()
    backend.kill()
    server = await rig(backend, root=tmp_path, supervise=False)
    await server.control(run, "cancel")
    await server.supervisor.start()
    ended = await server.until(run, State.CANCELLED)
    assert ended.cancellation is not None
    assert (ended.cancellation.steps, ended.cancellation.survivors) == (("sweep",), 0)


class Standing(SystemClock):
    """A clock on which a process can stand still: `skip` seconds pass at once."""

    def __init__(self) -> None:
        self.skip = 0.0

    def boot(self) -> float:
        return super().boot() + self.skip


async def test_a_process_that_stood_still_takes_its_runs_again(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        await lines(200)(agent)
        await agent.go.wait()
        await lines(200)(agent)

    clock = Standing()
    backend = fake(script)
    server = await rig(backend, clock=clock)
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await eventually(lambda: printed(server, run))
    old = server.worker._holds[run.pk].lease
    clock.skip = 60.0
    agent.go.set()
    ended = await server.until(run, State.COMPLETED)
    assert (ended.token, ended.attempt, len(backend.agents)) == (old.token + 2, 1, 1)  # taken and let go
    assert await printed(server, run) == [f"line {n}" for n in range(200)] * 2
    assert [(d["adopted"], d["reason"]) for d in await server.data(run, "run.recovered")] == [
        (True, "lease_expired")
    ]  # fmt: skip
    with pytest.raises(LeaseLost):
        await server.store.write(lambda tx: tx.leases.check(replace(old, trusted_until=1e12)))


async def test_a_holder_that_was_replaced_stops_touching_the_run(rig: Make) -> None:
    backend = fake(waiting)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await begun(server, backend)
    taken = await server.store.write(lambda tx: tx.leases.take(run.pk, 999, 1, lease_s=0))
    agent.token = taken.token
    seq = len(await server.events(run))
    agent.say("for the next holder")
    await eventually(lambda: not server.worker.holds(run.pk))
    assert len(await server.events(run)) == seq
    assert agent.alive
    agent.go.set()


async def test_renewals_keep_leases_and_tell_keepers(rig: Make) -> None:
    backend = fake(waiting)
    server = await rig(backend, timing=replace(FAST, renew_s=0.1))
    run = await server.submit(mode="oneshot")
    agent = await begun(server, backend)
    hold = server.worker._holds[run.pk]
    before = hold.lease.trusted_until
    await eventually(lambda: agent.renewed >= 10 and hold.lease.trusted_until > before + 0.5)
    agent.go.set()
    ended = await server.until(run, State.COMPLETED)
    assert ended.token == 2  # only let go


async def test_the_rescuer_takes_up_what_nobody_renews(rig: Make) -> None:
    clock = Standing()
    backend = fake(waiting)
    server = await rig(backend, clock=clock)
    run = await server.submit(mode="oneshot")
    agent = await begun(server, backend)
    taken = await server.store.write(lambda tx: tx.leases.take(run.pk, 999, 1, lease_s=0))
    agent.token = taken.token
    await server.worker.renew()
    await eventually(lambda: not server.worker.holds(run.pk))
    rescuer = Rescuer(server.shop, server.worker)
    assert await rescuer.once() == 0
    clock.skip += 2.0
    assert await rescuer.once() == 0
    clock.skip += server.timing.lease_s
    assert await rescuer.once() == 1
    agent.go.set()
    ended = await server.until(run, State.COMPLETED)
    assert ended.token == 4  # taken twice and let go
    assert (await server.data(run, "run.recovered"))[0]["reason"] == "worker_gone"


async def test_shutdown_hands_back_and_uses_no_attempt(rig: Make, tmp_path: Path) -> None:
    backend = fake(waiting)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot")
    pausing = await server.submit(mode="oneshot", workspace=None)
    await begun(server, backend)
    await server.agent(backend, 2)
    await server.until(pausing, State.RUNNING)
    await server.control(pausing, "pause")
    await server.supervisor.shutdown()
    assert [agent.alive for agent in backend.agents] == [False, False]
    assert (await server.run(run)).state is State.QUEUED
    assert (await server.run(pausing)).state is State.PAUSED
    assert (await server.data(run, "run.requeued"))[0]["reason"] == "shutdown"
    await server.close()
    server = await rig(backend, root=tmp_path)
    (await server.agent(backend, 3)).go.set()
    ended = await server.until(run, State.COMPLETED)
    assert (ended.attempt, ended.stats.turns) == (1, 1)
    assert "cut off" in backend.agents[2].start.prompt


async def test_handover_leaves_the_agent_alone(rig: Make, tmp_path: Path) -> None:
    async def script(agent: FakeAgent) -> None:
        await lines(100)(agent)
        await agent.go.wait()
        await lines(100)(agent)

    backend = fake(script)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot")
    await server.agent(backend)
    await eventually(lambda: printed(server, run))
    await server.supervisor.handover()
    assert (await server.types(run))[-1] == "run.handed_over"
    assert (await server.run(run)).state is State.RUNNING
    await server.close()
    assert backend.agents[0].alive
    backend.agents[0].go.set()
    server = await rig(backend, root=tmp_path)
    ended = await server.until(run, State.COMPLETED)
    assert (ended.attempt, len(backend.agents)) == (1, 1)
    assert await printed(server, run) == [f"line {n}" for n in range(100)] * 2
    assert [d["adopted"] for d in await server.data(run, "run.recovered")] == [True]


async def test_a_crash_between_two_turns_loses_nothing(rig: Make, tmp_path: Path) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write("a.txt", str(agent.start.turn))

    backend = fake(script)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(loop_delay_s=4, limits={"turns": 2}, completion={"idle_turns": 0})

    async def settled() -> bool:
        return (await server.run(run)).stats.turns == 1

    await eventually(settled)
    await server.crash()
    server = await rig(backend, root=tmp_path)
    ended = await server.until(run, State.COMPLETED)
    assert (ended.turn, ended.attempt, ended.stats.turns) == (2, 1, 2)
    assert "turn.abandoned" not in await server.types(run)


async def test_a_crash_between_the_row_and_the_start_is_no_lost_turn(rig: Make, tmp_path: Path) -> None:
    backend = fake(waiting)
    held = asyncio.Event()
    server = await rig(backend, root=tmp_path)
    start = backend.start

    async def slow(*arguments):  # type: ignore[no-untyped-def]
        turn = await start(*arguments)
        await held.wait()
        return turn

    backend.start = slow  # type: ignore[method-assign]
    run = await server.submit(mode="oneshot")
    await server.agent(backend)
    await server.crash()
    backend.start = start  # type: ignore[method-assign]
    server = await rig(backend, root=tmp_path)
    backend.agents[0].go.set()
    await server.until(run, State.COMPLETED)
    assert (await server.types(run)).count("turn.started") == 1
    assert len(backend.agents) == 1


async def test_one_broken_claim_does_not_end_claiming(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await rig(fake())
    claim = server.source.claim
    broken: list[bool] = []

    async def once_broken(free: int) -> Any:
        if not broken:
            broken.append(True)
            raise RuntimeError("a fault of ours")
        return await claim(free)

    monkeypatch.setattr(server.source, "claim", once_broken)
    await server.until(await server.submit(mode="oneshot"), State.COMPLETED)
    assert broken


async def test_one_broken_try_does_not_end_taking_a_run_again(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = fake(waiting)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await begun(server, backend)
    take_again = server.worker._take_again
    broken: list[bool] = []

    async def once_broken(*arguments: Any) -> None:
        if not broken:
            broken.append(True)
            raise RuntimeError("a fault of ours")
        await take_again(*arguments)

    monkeypatch.setattr(worker, "LONGEST_REST_S", 0.01)
    monkeypatch.setattr(server.worker, "_take_again", once_broken)
    # A disk that was full for hours has let it fail often.
    server.worker._faults[run.pk] = 5000, server.clock.boot()
    server.worker._holds[run.pk].lose("for the test")
    assert (await eventually(lambda: server.data(run, "run.recovered")))[0]["adopted"]
    agent.go.set()
    await server.until(run, State.COMPLETED)
    assert broken
