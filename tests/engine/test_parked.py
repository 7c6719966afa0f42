"""Where the decision comes late: the server was killed, the agent died, or it has waited too long."""

import asyncio
from pathlib import Path

import pytest
from tests.engine.asking import ASKING, asks, command, edit, said, started
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent, FakeTurn

from overnight.domain.action import Action
from overnight.domain.run import Position
from overnight.domain.states import State
from overnight.domain.update import Answer, SessionKnown
from overnight.domain.values import Failure
from overnight.engine import desk, spare_memory, worker
from overnight.engine.policy import RunPolicy
from overnight.errors import ApprovalOver, ApprovalPending
from overnight.ports.backend import TurnStart, Verdict
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def test_the_action_is_looked_at_again_when_the_decision_is_released(rig: Make, tmp_path: Path) -> None:
    """It was decided while nobody could pass it on; until somebody can, the file was swapped."""
    server, run, backend = await started(rig, asks(edit("notes.txt")))
    [approval] = await server.pending(run)
    await server.crash()
    second = await rig(backend, root=server.root, supervise=False)
    await second.decide(approval, "allow_once")
    (second.workspace() / "notes.txt").symlink_to(tmp_path / "elsewhere")
    await second.supervisor.start()
    await second.until(run, State.COMPLETED)
    [text] = await said(second, run)
    assert text.startswith("Write notes.txt: False")
    assert "action_changed" in [data["code"] for data in await second.data(run, "error.recorded")]


async def test_a_blocked_run_uses_no_slot(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()), slots=1)
    await server.until(run, State.BLOCKED)
    other = await server.submit(mode="oneshot", workspace=None)
    await server.until(other, State.COMPLETED)
    [approval] = await server.pending(run)
    await server.decide(approval, "allow_once")
    await server.until(run, State.COMPLETED)


async def test_the_agent_lives_and_another_server_adopts_it(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    await server.crash()
    second = await rig(backend, root=server.root)
    await eventually(lambda: backend.agents[0].token > 1)
    assert (await second.run(run)).state is State.BLOCKED
    await second.decide(approval, "allow_once")
    await second.until(run, State.COMPLETED)
    assert (len(backend.agents), await said(second, run)) == (1, ["make test: True"])
    assert (await second.types(run)).count("approval.requested") == 1


async def test_a_decision_taken_while_no_server_holds_the_run_is_passed_on(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    await server.crash()
    second = await rig(backend, root=server.root, supervise=False)
    await second.decide(approval, "allow_once")
    await second.supervisor.start()
    await second.until(run, State.COMPLETED)
    assert (len(backend.agents), await said(second, run)) == (1, ["make test: True"])


async def test_the_agent_died_meanwhile_so_the_decision_starts_the_turn_again(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    await server.crash()
    backend.kill()
    second = await rig(backend, root=server.root)
    waiting = await second.until(run, State.WAITING)
    assert waiting.waiting_for is not None
    assert waiting.waiting_for.approval_id == approval.id
    with pytest.raises(ApprovalPending, match=approval.id):
        await second.control(run, "resume")
    await second.decide(approval, "allow_once")
    await second.until(run, State.COMPLETED)
    prompt = backend.agents[1].start.prompt
    assert 'You had asked: "make test"' in prompt
    assert "Allow once" in prompt
    assert await said(second, run) == ["make test: True"]
    assert len(await second.data(run, "approval.requested")) == 1


async def test_an_allowance_covers_an_equal_action_once(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command(), command()))
    [approval] = await server.pending(run)
    await server.crash()
    backend.kill()
    second = await rig(backend, root=server.root)
    await second.until(run, State.WAITING)
    await second.decide(approval, "allow_once")
    [again] = await second.pending(run)
    assert (again.request, again.digest) == ("p1", approval.digest)
    await second.decide(again, "reject_once")
    await second.until(run, State.COMPLETED)
    assert await said(second, run) == ["make test: True", "make test: False"]


async def test_an_allowance_that_reached_its_agent_covers_nothing_after_a_crash(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine went down after the agent had begun to act, and before that could be recorded."""
    told = asyncio.Event()
    answer = FakeTurn.answer

    async def cut_off(turn: FakeTurn, key: str, verdict: Verdict) -> bool:
        assert await answer(turn, key, verdict)
        told.set()
        return bool(await asyncio.Event().wait())

    async def script(agent: FakeAgent) -> None:
        await agent.ask("p0", command())
        await agent.forever()

    server, run, backend = await started(rig, script)
    [approval] = await server.pending(run)
    monkeypatch.setattr(FakeTurn, "answer", cut_off)
    await server.decide(approval, "allow_once")
    await told.wait()
    await server.crash()
    backend.kill()
    second = await rig(backend, root=server.root)
    [again] = await second.pending(run)
    assert (again.digest, again.turn, again.attempt) == (approval.digest, 1, 2)
    await second.control(run, "cancel")


async def test_a_long_wait_parks_the_agent(rig: Make) -> None:
    policy = RunPolicy(default_backend="fake", park_after_s=0.05)
    backend = fake(asks(command()), capabilities=ASKING)
    server = await rig(backend, policy=policy)
    run = await server.submit(mode="oneshot", approval_policy="ask_all")
    waiting = await server.until(run, State.WAITING)
    assert (waiting.pid, waiting.worker, waiting.attempt) == (None, None, 1)
    assert not backend.agents[0].alive
    [approval] = await server.pending(run)
    await server.decide(approval, "allow_once")
    ended = await server.until(run, State.COMPLETED)
    assert (ended.turn, ended.stats.turns) == (2, 1)
    assert "cut off" in backend.agents[1].start.prompt


async def test_a_machine_short_of_memory_parks_it_at_once(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "memory_is_short", lambda: True)
    server, run, backend = await started(rig, asks(command()))
    await server.until(run, State.WAITING)
    assert not backend.agents[0].alive
    [approval] = await server.pending(run)
    monkeypatch.setattr(desk, "memory_is_short", lambda: False)
    await server.decide(approval, "allow_once")
    await server.until(run, State.COMPLETED)


@pytest.mark.parametrize(
    "said, short",
    [
        ("MemTotal: 1000 kB\nMemAvailable: 49 kB\n", True),
        ("MemTotal: 1000 kB\nMemAvailable: 51 kB\n", False),
        ("MemTotal: 1000 kB\n", False),
        (None, False),
    ],
)
def test_the_kernel_says_how_much_memory_there_is(
    said: str | None, short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "meminfo"
    if said is not None:
        file.write_text(said)
    monkeypatch.setattr(spare_memory, "_FILE", file)
    assert spare_memory.memory_is_short() is short


async def test_the_clock_of_the_turn_stands_still_meanwhile(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    [until] = await eventually(lambda: backend.agents[0].deadlines)
    boot = server.clock.boot()
    assert until > boot + 3600 + 800
    await backend.agents[0].work(0.3)
    await server.decide(approval, "allow_once")
    ended = await server.until(run, State.COMPLETED)
    assert boot + 3590 < backend.agents[0].deadlines[1] < server.clock.boot() + 3600
    [turn] = await server.turns(run)
    assert turn.blocked_ms >= 300
    assert ended.stats.wall_ms < (ended.ended_at or 0) - ended.created_at - 250


async def test_what_is_said_to_a_run_that_waits_is_heard_after_the_decision(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    assert await server.control(run, "steer", text="mind the gap") == "queue"
    await server.decide(approval, "allow_once")
    [again] = [one for one in await server.pending(run) if one.turn == 2]
    assert "mind the gap" in backend.agents[1].start.prompt
    await server.decide(again, "allow_once")
    ended = await server.until(run, State.COMPLETED)
    assert ended.stats.turns == 2


async def test_an_orderly_shutdown_leaves_the_question_open(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    await server.supervisor.shutdown()
    await server.close()
    second = await rig(backend, root=server.root)
    assert (await second.run(run)).state is State.WAITING
    await second.decide(approval, "allow_once")
    await second.until(run, State.COMPLETED)


async def test_a_waiting_run_can_be_paused_and_goes_back_to_its_question(rig: Make) -> None:
    server, run, backend = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    await server.crash()
    backend.kill()
    second = await rig(backend, root=server.root)
    await second.until(run, State.WAITING)
    await second.control(run, "pause")
    await second.until(run, State.PAUSED)
    await second.control(run, "resume")
    assert (await second.run(run)).state is State.WAITING
    await second.control(run, "pause")
    await second.decide(approval, "allow_once")
    assert (await second.run(run)).state is State.PAUSED
    await second.control(run, "resume")
    await second.until(run, State.COMPLETED)


async def test_a_withdrawal_that_was_read_but_not_recorded_is_found_by_the_next_server(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        asking = asyncio.ensure_future(agent.ask("p", command()))
        await agent.go.wait()
        asking.cancel()
        agent.withdraw("p")
        await agent.forever()

    server, run, backend = await started(rig, script)
    await server.pending(run)
    await server.crash()
    backend.agents[0].go.set()
    await eventually(lambda: len(backend.agents[0].updates) == 2)
    second = await rig(backend, root=server.root, supervise=False)
    await second.store.write(lambda tx: tx.turns.advance(run.pk, 1, 1, Position(stdout=2), 0))
    await second.supervisor.start()
    going = await second.until(run, State.RUNNING)
    assert going.waiting_for is None
    assert await second.store.read(lambda tx: tx.approvals.pending(run.pk)) == ()
    await second.control(run, "cancel")


async def test_what_cannot_be_taken_up_again_ends_the_run_although_it_waits(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its backend is not configured any more; nobody could ever pass the decision on."""
    monkeypatch.setattr(worker, "LONGEST_REST_S", 0.01)
    server, run, _ = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    await server.crash()
    second = await rig(fake(name="other"), root=server.root)
    failed = await second.until(run, State.FAILED)
    assert failed.error is not None
    assert failed.error.code == "internal"
    with pytest.raises(ApprovalOver):
        await second.decide(approval, "allow_once")


async def test_an_answer_reaches_the_agent_although_its_first_start_fails(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        if agent.start.turn == 1:
            agent.emit(SessionKnown(state={"session": "s1"}))
            action = Action(kind="other", tool="ask", title="Which colour?")
            await agent.ask("q", action, Answer(id="r", label="Red"), Answer(id="g", label="Green"))

    server, run, backend = await started(rig, script)
    [approval] = await server.pending(run)
    await server.crash()
    backend.kill()
    starts = []

    def refuse_once(start: TurnStart) -> None:
        starts.append(start)
        busy = Failure(code="rate_limited", message="too many requests", retryable=True)
        backend.refuses = busy if len(starts) == 1 else None

    backend.on_start = refuse_once
    second = await rig(backend, root=server.root)
    await second.until(run, State.WAITING)
    await second.decide(approval, "g")
    await second.until(run, State.COMPLETED)
    assert [(start.turn, start.attempt, "the decision is: Green" in start.prompt) for start in starts] == [
        (2, 1, True), (2, 2, True),
    ]  # fmt: skip


async def test_a_pause_that_was_asked_for_holds_although_the_budget_is_spent_too(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.use(600)
        await agent.go.wait()

    backend = fake(script)
    server = await rig(backend)
    run = await server.submit(limits={"tokens": 500})
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    await server.control(run, "pause")
    agent.go.set()
    [approval] = await server.pending(run)
    await server.decide(approval, "raise", changes={"limits": {"tokens": 10_000}})
    assert (await server.run(run)).state is State.PAUSED
    await server.control(run, "cancel")
