"""Failing backends: back-off, fallback, pause; and spent budgets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine.conftest import Make, fake, quiet
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import FAST, Rig
from tests.engine.test_holds import begun, waiting

from overnight.clock import SystemClock
from overnight.domain.queue_limits import QueueLimits
from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.domain.values import Failure
from overnight.engine import executor, turn_loop
from overnight.engine.maintenance.expirer import Expirer
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

BUSY = Failure(code="rate_limited", message="too many requests", retryable=True)
WRONG = Failure(code="unauthorized", message="bad key", retryable=False)


def failing(failure: Failure, times: int):  # type: ignore[no-untyped-def]
    async def script(agent: FakeAgent) -> TurnOutcome | None:
        nonlocal times
        if times:
            times -= 1
            return TurnOutcome(failure=failure)
        agent.say("fine")
        return None

    return script


async def test_a_retryable_failure_is_tried_again_at_the_same_turn(rig: Make) -> None:
    server = await rig(fake(failing(BUSY, 2)))
    run = await server.submit(mode="oneshot")
    ended = await server.until(run, State.COMPLETED)
    assert (ended.turn, ended.attempt, ended.stats.turns) == (1, 3, 1)
    assert [(t.number, t.attempt, t.state.value) for t in await server.turns(run)] == [
        (1, 1, "failed"), (1, 2, "failed"), (1, 3, "completed"),
    ]  # fmt: skip
    assert (await server.data(run, "turn.failed"))[0] == {"turn": 1, **BUSY.to_json()}


async def test_then_the_next_fallback_from_its_first_attempt(rig: Make) -> None:
    first, second = fake(failing(BUSY, 9)), fake(quiet, name="other")
    server = await rig(first, second)
    run = await server.submit(mode="oneshot", fallback=["other/big"], limits={"attempts": 2})
    ended = await server.until(run, State.COMPLETED)
    assert (ended.fallback, ended.backend, ended.model, ended.attempt) == (1, "other", "big", 1)
    assert (len(first.agents), len(second.agents)) == (2, 1)
    assert second.agents[0].start.model == "big"


async def test_without_a_fallback_it_pauses_and_says_why(rig: Make) -> None:
    backend = fake(failing(BUSY, 2))
    server = await rig(backend)
    run = await server.submit(mode="oneshot", limits={"attempts": 2})
    paused = await server.until(run, State.PAUSED)
    assert paused.pause_reason == "backend_error"
    assert paused.waiting_for is not None
    assert "rate_limited" in paused.waiting_for.detail
    data = (await server.data(run, "run.paused"))[0]
    assert (data["reason"], data["code"], data["retry_at"]) == ("backend_error", "rate_limited", None)
    await server.control(run, "resume")
    ended = await server.until(run, State.COMPLETED)
    assert (ended.waiting_for, ended.attempt) == (None, 1)


async def test_a_far_reset_time_is_left_to_a_person(rig: Make) -> None:
    later = SystemClock().wall_ms() + 7_200_000
    server = await rig(fake(failing(replace(BUSY, retry_at=later), 1)))
    run = await server.submit(mode="oneshot")
    paused = await server.until(run, State.PAUSED)
    assert paused.attempt == 1
    assert (await server.data(run, "run.paused"))[0]["retry_at"] is not None


async def test_a_lasting_failure_goes_to_the_fallback_at_once_or_fails(rig: Make) -> None:
    first, second = fake(failing(WRONG, 9)), fake(failing(WRONG, 9), name="other")
    server = await rig(first, second)
    run = await server.submit(mode="oneshot", fallback=["other"])
    ended = await server.until(run, State.FAILED)
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable, len(first.agents), len(second.agents)) == (
        "unauthorized", False, 1, 1,
    )  # fmt: skip


async def test_a_fallback_waits_for_its_turn_at_the_other_backend(rig: Make) -> None:
    """Its limits hold for whoever comes from elsewhere, too; and perhaps another worker offers it."""
    first, second = fake(failing(WRONG, 9)), fake(waiting, name="other")
    server = await rig(first, second, limits=QueueLimits(backends={"other": 1}))
    holder = await server.submit(mode="oneshot", backend="other", workspace=None)
    agent = await begun(server, second)
    run = await server.submit(mode="oneshot", fallback=["other"], workspace=None)
    await eventually(lambda: there(server, run, "run.requeued"))
    assert (await server.data(run, "run.requeued")) == [{"reason": "fallback"}]
    assert [found.id for found in await held(server)] == [holder.id]
    agent.go.set()
    await server.until(holder, State.COMPLETED, within=30)
    (await server.agent(second, 2)).go.set()
    ended = await server.until(run, State.COMPLETED, within=30)
    assert (ended.fallback, ended.attempt, len(second.agents)) == (1, 1, 2)


async def there(server: Rig, run: Run, type: str) -> bool:
    return type in await server.types(run)


async def held(server: Rig) -> list[Run]:
    return [found.run for found in await server.store.read(lambda tx: tx.leases.held())]


async def test_a_failing_preflight_fails_the_run_or_goes_to_the_fallback(rig: Make) -> None:
    server = await rig(fake(problem="no login"), fake(quiet, name="other"))
    ended = await server.until(await server.submit(mode="oneshot"), State.FAILED)
    assert ended.error is not None
    assert ended.error.code == "preflight_failed"
    assert ended.error.message.endswith("no login; mend it")
    server.directory._checks.clear()
    run = await server.submit(mode="oneshot", fallback=["other"])
    assert (await server.until(run, State.COMPLETED)).fallback == 1


async def test_a_program_that_cannot_be_started_is_a_failed_turn(rig: Make) -> None:
    server = await rig(fake(refuses=WRONG))
    run = await server.submit(mode="oneshot")
    await server.until(run, State.FAILED)
    assert (await server.types(run))[-3:] == ["turn.started", "turn.failed", "run.failed"]


async def test_long_back_off_gives_the_slot_back(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SHORT_REST_S", 0.1)
    clock = Jumping()
    server = await rig(fake(failing(BUSY, 1)), clock=clock, timing=replace(FAST, backoff_s=600))
    run = await server.submit(mode="oneshot")

    async def resting():  # type: ignore[no-untyped-def]
        found = await server.run(run)
        return found if found.state is State.QUEUED and found.turn else None

    found = await eventually(resting)
    assert (found.attempt, found.not_before > server.clock.wall_ms()) == (2, True)
    assert (await server.data(run, "run.requeued"))[0]["reason"] == "back_off"
    clock.ahead_ms = 3_600_000
    ended = await server.until(run, State.COMPLETED)
    assert (ended.turn, ended.attempt) == (1, 2)


def spending(tokens: int):  # type: ignore[no-untyped-def]
    async def script(agent: FakeAgent) -> None:
        agent.write(f"{agent.start.turn}.txt", "x")
        agent.use(tokens)

    return script


async def test_a_spent_budget_asks_and_goes_on_when_raised(rig: Make) -> None:
    server = await rig(fake(spending(600)))
    run = await server.submit(limits={"tokens": 1000, "turns": 4}, completion={"idle_turns": 0})
    waiting = await server.until(run, State.WAITING)
    assert waiting.waiting_for is not None
    assert (waiting.waiting_for.kind, waiting.stats.turns, waiting.pid) == ("budget", 2, None)
    assert waiting.waiting_until is not None
    assert waiting.waiting_until > server.clock.wall_ms() + 80_000_000
    assert "budget.spent" in await server.types(run)
    await server.control(run, "resume", limits={"tokens": 100_000})
    ended = await server.until(run, State.COMPLETED)
    assert (ended.stats.turns, ended.stats.usage.total, ended.waiting_until) == (4, 2400, None)


async def test_a_spent_budget_that_nobody_raises_is_finished(rig: Make) -> None:
    from overnight.engine.policy import RunPolicy

    server = await rig(
        fake(spending(600)), policy=RunPolicy(default_backend="fake", approval_expires={"budget": 0.05})
    )
    run = await server.submit(limits={"tokens": 500})
    await server.until(run, State.WAITING)
    expirer = Expirer(server.store, server.clock)
    assert await eventually(expirer.once) == 1
    ended = await server.until(run, State.COMPLETED)
    assert ended.completion is not None
    assert ended.completion.by == "decision"
    assert await expirer.once() == 0


@pytest.mark.parametrize(
    "on_spent, pattern, state, code",
    [
        ("finish", None, State.COMPLETED, "limit"),
        ("finish", "^DONE$", State.FAILED, "condition_not_met"),
        ("fail", None, State.FAILED, "budget_spent"),
    ],
)
async def test_a_spent_budget_ends_the_run(
    rig: Make, on_spent: str, pattern: str | None, state: State, code: str
) -> None:
    server = await rig(fake(spending(600)))
    run = await server.submit(limits={"tokens": 500, "on_spent": on_spent}, completion={"pattern": pattern})
    ended = await server.until(run, state)
    found = ended.completion.by if ended.completion else ended.error.code if ended.error else None
    assert found == code


async def test_a_budget_is_announced_before_it_is_spent(rig: Make) -> None:
    server = await rig(fake(spending(450)))
    run = await server.submit(limits={"tokens": 1000, "on_spent": "finish"})
    await server.until(run, State.COMPLETED)
    types = await server.types(run)
    assert types.count("budget.warned") == 1
    assert (await server.data(run, "budget.warned"))[0]["budget"] == "tokens"


async def test_a_turn_that_takes_too_long_is_ended_and_tried_again(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_loop, "OVERDUE_S", 0.05)

    async def script(agent: FakeAgent) -> None:
        if agent.start.attempt == 1:
            await agent.forever()

    server = await rig(fake(script), timing=replace(FAST, grace_s=0.05))
    run = await server.submit(mode="oneshot", limits={"turn_timeout_s": 0.5})
    ended = await server.until(run, State.COMPLETED)
    assert ended.attempt >= 2
    assert (await server.data(run, "turn.failed"))[0]["code"] == "turn_timeout"


class Jumping(SystemClock):
    """A wall clock that somebody sets forward."""

    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


@pytest.mark.parametrize("adopted", [False, True], ids=["watched", "adopted"])
async def test_a_wall_clock_that_jumps_spends_no_budget_and_ends_no_turn(
    rig: Make, tmp_path: Path, adopted: bool
) -> None:
    clock = Jumping()
    backend = fake(waiting)
    server = await rig(backend, clock=clock, root=tmp_path)
    run = await server.submit(mode="oneshot", limits={"wall_clock_s": 3600, "turn_timeout_s": 60})
    agent = await begun(server, backend)
    if adopted:
        await server.crash()
    clock.ahead_ms = 5 * 3_600_000
    if adopted:
        server = await rig(backend, clock=clock, root=tmp_path)
        await server.data(run, "run.recovered")
    agent.go.set()
    ended = await server.until(run, State.COMPLETED)
    assert ended.stats.wall_ms <= 61_000
    assert "turn.failed" not in await server.types(run)
    (completed,) = await server.data(run, "turn.completed")
    assert completed["duration_ms"] <= 61_000
