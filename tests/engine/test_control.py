"""What people ask of a run while it is carried out: acted on at once, not at the turn's end."""

from __future__ import annotations

import asyncio

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import Rig

from overnight.domain.backend import Capabilities
from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def stubborn(agent: FakeAgent) -> None:
    agent.say("working")
    await agent.forever()


async def first_waits(agent: FakeAgent) -> None:
    agent.say(f"turn {agent.start.turn}")
    agent.write(f"{agent.start.turn}.txt", "x")
    if agent.start.turn == 1:
        await agent.go.wait()


async def test_cancel_stops_the_agent(rig: Make) -> None:
    backend = fake(stubborn)
    server = await rig(backend)
    run = await server.submit()
    await server.agent(backend)
    await server.until(run, State.RUNNING)
    await server.control(run, "cancel", reason="enough")
    ended = await server.until(run, State.CANCELLED)
    assert ended.cancellation is not None
    assert (ended.cancellation.reason, ended.cancellation.steps, ended.cancellation.survivors) == (
        "manual", ("interrupt",), 0,
    )  # fmt: skip
    types = await server.types(run)
    assert {"run.cancelling", "control.requested"} <= set(types)
    assert types[-2:] == ["turn.completed", "run.cancelled"]
    assert (await server.data(run, "turn.completed"))[0]["stop_reason"] == "cancelled"
    assert not backend.agents[0].alive
    assert await server.store.read(lambda tx: tx.requests.pending(run.pk)) == ()


async def test_pause_now_interrupts_and_resume_begins_the_next_turn(rig: Make) -> None:
    backend = fake(first_waits)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    await server.agent(backend)
    await server.until(run, State.RUNNING)
    await server.control(run, "pause", when="now")
    paused = await server.until(run, State.PAUSED)
    assert (paused.pause_reason, paused.worker, paused.pid) == ("manual", None, None)
    await server.control(run, "resume")
    ended = await server.until(run, State.COMPLETED)
    assert (ended.turn, ended.attempt, ended.stats.turns) == (2, 1, 1)
    assert "cut off" in backend.agents[1].start.prompt
    assert [t for t in await server.types(run) if t.startswith("run.")] == [
        "run.queued", "run.started", "run.pausing", "run.paused", "run.resumed", "run.resumed", "run.completed",
    ]  # fmt: skip


async def test_pause_after_the_turn_lets_it_end(rig: Make) -> None:
    backend = fake(first_waits)
    server = await rig(backend)
    run = await server.submit()
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    await server.control(run, "pause")
    assert (await server.run(run)).state is State.PAUSING
    agent.go.set()
    paused = await server.until(run, State.PAUSED)
    assert (paused.stats.turns, len(backend.agents)) == (1, 1)
    assert (await server.data(run, "turn.completed"))[0]["stop_reason"] == "end_turn"


async def test_resume_takes_a_pause_back_that_has_not_come_yet(rig: Make) -> None:
    backend = fake(first_waits)
    server = await rig(backend)
    run = await server.submit(limits={"turns": 2}, completion={"idle_turns": 0})
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    await server.control(run, "pause")
    await server.control(run, "resume")
    agent.go.set()
    assert (await server.until(run, State.COMPLETED)).stats.turns == 2


async def test_a_completed_condition_outranks_a_pause(rig: Make) -> None:
    backend = fake(first_waits)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    await server.control(run, "pause")
    agent.go.set()
    await server.until(run, State.COMPLETED)


async def test_steer_is_injected_where_the_backend_can(rig: Make) -> None:
    backend = fake(first_waits)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    await eventually(lambda: server.worker._holds[run.pk].living)
    assert await server.control(run, "steer", text="use tabs") == "inject"
    await eventually(lambda: agent.injected == ["use tabs"])
    agent.go.set()
    await server.until(run, State.COMPLETED)
    messages = await server.store.read(lambda tx: tx.sessions.messages(run.session_pk, 10))
    assert ("user", "use tabs") in [(m.role, m.text) for m in messages]


async def test_steer_interrupts_where_it_cannot_be_injected(rig: Make) -> None:
    capabilities = Capabilities(interrupt=True, sandbox=("workspace_write",))
    backend = fake(first_waits, capabilities=capabilities)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    await server.agent(backend)
    await server.until(run, State.RUNNING)
    assert await server.control(run, "steer", text="use tabs") == "interrupt"
    ended = await server.until(run, State.COMPLETED)
    assert ended.turn == 2
    assert "use tabs" in backend.agents[1].start.prompt
    assert await server.store.read(lambda tx: tx.requests.pending(run.pk)) == ()


async def test_steer_is_queued_for_the_next_turn(rig: Make) -> None:
    capabilities = Capabilities(sandbox=("workspace_write",))
    backend = fake(first_waits, capabilities=capabilities)
    server = await rig(backend)
    run = await server.submit(limits={"turns": 2}, completion={"idle_turns": 0})
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    assert await server.control(run, "steer", text="use tabs") == "queue"
    agent.go.set()
    await server.until(run, State.COMPLETED)
    assert "use tabs" not in backend.agents[0].start.prompt
    assert "use tabs" in backend.agents[1].start.prompt


async def test_a_cancel_ends_a_rest_between_turns(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write("a.txt", str(agent.start.turn))

    backend = fake(script)
    server = await rig(backend)
    run = await server.submit(loop_delay_s=4)
    await eventually(lambda: _settled(server, run))
    await server.control(run, "cancel")
    await server.until(run, State.CANCELLED)


async def test_a_long_rest_gives_the_slot_back(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write("a.txt", str(agent.start.turn))

    server = await rig(fake(script))
    run = await server.submit(loop_delay_s=60)
    await server.until(run, State.RUNNING)
    resting = await eventually(lambda: _queued_again(server, run))
    assert resting is not None
    assert resting.not_before is not None
    assert resting.waiting_for is not None
    assert (resting.waiting_for.kind, resting.worker) == ("time", None)
    assert (await server.data(run, "run.requeued"))[0]["reason"] == "loop_delay"
    await server.control(run, "cancel")
    await server.until(run, State.CANCELLED)


async def test_what_was_to_begin_later_still_does_after_a_pause(rig: Make) -> None:
    backend = fake()
    server = await rig(backend)
    run = await server.submit(mode="oneshot", not_before="2999-01-01T00:00:00Z")
    await server.control(run, "pause")
    await server.control(run, "resume")
    found = await server.run(run)
    assert (found.state, found.not_before, found.waiting_for) == (
        State.QUEUED,
        run.not_before,
        run.waiting_for,
    )
    assert await server.source.claim(9) == ()
    assert backend.agents == []


async def test_a_run_that_nobody_works_on_is_cancelled_while_it_is_prepared(rig: Make) -> None:
    backend = fake(stubborn)
    server = await rig(backend)
    held = asyncio.Event()

    async def check():  # type: ignore[no-untyped-def]
        await held.wait()
        raise AssertionError

    backend.check = check  # type: ignore[method-assign]
    run = await server.submit()
    await server.until(run, State.RUNNING)
    await server.control(run, "cancel")
    await server.until(run, State.CANCELLED)
    assert backend.agents == []
    held.set()


async def _settled(server: Rig, run: Run) -> bool:
    return (await server.run(run)).stats.turns == 1


async def _queued_again(server: Rig, run: Run) -> Run | None:
    found = await server.run(run)
    return found if found.stats.turns and found.state is State.QUEUED else None
