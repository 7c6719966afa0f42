"""Commands on runs: durable, once, and only where the state allows them."""

from __future__ import annotations

import asyncio

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import ME

from overnight.domain.request import Principal
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.engine.control import Control
from overnight.errors import (
    Conflict,
    CountMismatch,
    DiskFull,
    Draining,
    IdempotencyKeyReused,
    InvalidInput,
    InvalidTransition,
    NotFound,
    RunNotFinal,
)
from overnight.ports.tables import Idempotency, RunFilter

pytestmark = pytest.mark.anyio

SPEC = RunSpec(goal="do it", mode="oneshot", backend="fake")
LATER = {"not_before": "2099-01-01T00:00:00Z"}


async def busy(agent: FakeAgent) -> TurnOutcome | None:
    await agent.forever()
    return None


async def test_the_same_key_makes_one_run_also_at_the_same_moment(rig: Make) -> None:
    server = await rig(fake())
    key = Idempotency(route="POST /runs", key="k", body_hash="h")
    answers = await asyncio.gather(*(server.service.submit(SPEC, ME, idempotency=key) for _ in range(20)))
    assert len({run.id for run, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1
    other = Idempotency(route="POST /runs", key="k", body_hash="other")
    with pytest.raises(IdempotencyKeyReused):
        await server.service.submit(SPEC, ME, idempotency=other)


async def test_an_earlier_answer_is_given_even_while_new_work_is_refused(rig: Make) -> None:
    server = await rig(fake())
    key = Idempotency(route="POST /runs", key="k", body_hash="h")
    first, _ = await server.service.submit(SPEC, ME, idempotency=key)
    server.service.drain()
    again, new = await server.service.submit(SPEC, ME, idempotency=key)
    assert (again.id, new) == (first.id, False)
    with pytest.raises(Draining):
        await server.service.submit(SPEC, ME)


async def test_a_full_disk_refuses_new_work_only(rig: Make) -> None:
    server = await rig(fake(busy))
    run = await server.submit(mode="oneshot")
    server.service._free_bytes = lambda: 0
    with pytest.raises(DiskFull):
        await server.submit()
    await server.until(run, State.RUNNING)
    await server.control(run, "cancel")
    await server.until(run, State.CANCELLED)


async def test_a_retry_is_a_new_run_with_the_same_environment(rig: Make) -> None:
    server = await rig(fake())
    run = await server.submit(environment={"OVERNIGHT_VAR_A": "1"}, **LATER)
    with pytest.raises(RunNotFinal):
        await server.service.retry(run.id, ME)
    await server.control(run, "cancel")
    again = await server.service.retry(run.id, ME)
    assert (again.retry_of, again.spec.goal, again.session_id == run.session_id) == (run.id, "do it", False)
    assert await server.store.read(lambda tx: tx.runs.secret_environment(again.pk)) == {
        "OVERNIGHT_VAR_A": "1"
    }
    done = await server.until(again, State.COMPLETED)
    with pytest.raises(Conflict):
        await server.service.retry(done.id, ME)


async def test_deleting_takes_events_and_files_along(rig: Make) -> None:
    server = await rig(fake())
    run = await server.submit(mode="oneshot")
    await server.until(run)
    folder = server.shop.folders.run(run.id)
    assert folder.is_dir()
    await server.service.delete(run.id, ME)
    assert not folder.exists()
    with pytest.raises(NotFound):
        await server.run(run)
    waiting = await server.submit(**LATER)
    with pytest.raises(RunNotFinal):
        await server.service.delete(waiting.id, ME)


async def test_deleting_the_last_run_of_a_session_leaves_no_homes_of_agents(rig: Make) -> None:
    server = await rig(fake())
    first = await server.submit(mode="oneshot")
    await server.until(first)
    second = await server.submit(mode="oneshot", session_id=first.session_id)
    await server.until(second)
    homes = server.shop.folders.homes(first.session_id)
    assert homes.is_dir()
    await server.service.delete(first.id, ME)
    assert homes.is_dir(), "the second run may be retried in its session"
    await server.service.delete(second.id, ME)
    assert not homes.exists()


async def test_nobody_touches_anothers_run(rig: Make) -> None:
    server = await rig(fake())
    run = await server.submit(**LATER)
    other = Principal(owner="usr_other", name="other")
    for attempt in (
        server.service.control(run.id, Control(action="cancel"), other),
        server.service.retry(run.id, other),
        server.service.delete(run.id, other),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await server.run(run)).state is State.QUEUED


async def test_many_at_once_only_when_the_count_is_the_expected_one(rig: Make) -> None:
    server = await rig(fake())
    runs = [await server.submit(labels={"batch": "a"}, **LATER) for _ in range(3)]
    await server.submit(labels={"batch": "b"}, **LATER)
    batch = RunFilter(labels={"batch": "a"})
    with pytest.raises(CountMismatch):
        await server.service.control_many(Control(action="pause"), ME, filter=batch, expect_count=4)
    assert {(await server.run(run)).state for run in runs} == {State.QUEUED}
    await server.control(runs[0], "pause")
    results = await server.service.control_many(Control(action="pause"), ME, filter=batch, expect_count=3)
    refused = [result.run_id for result in results if isinstance(result.error, InvalidTransition)]
    assert refused == [runs[0].id]
    assert {(await server.run(run)).state for run in runs} == {State.PAUSED}


async def test_steering_needs_words_and_a_living_run(rig: Make) -> None:
    server = await rig(fake())
    run = await server.submit(**LATER)
    with pytest.raises(InvalidInput):
        await server.control(run, "steer", text="  ")
    assert await server.control(run, "steer", text="look left") == "queue"
    await server.control(run, "cancel")
    with pytest.raises(InvalidTransition):
        await server.control(run, "steer", text="too late")


async def test_a_pause_while_waiting_goes_back_to_waiting(rig: Make) -> None:
    async def spend(agent: FakeAgent) -> TurnOutcome | None:
        agent.use(1000)
        agent.write(f"{agent.start.turn}.txt", "x")
        return None

    server = await rig(fake(spend))
    run = await server.submit(limits={"tokens": 500})
    await server.until(run, State.WAITING)
    await server.control(run, "pause")
    assert (await server.run(run)).state is State.PAUSED
    await server.control(run, "resume")
    waiting = await server.run(run)
    assert (waiting.state, waiting.waiting_for and waiting.waiting_for.kind) == (State.WAITING, "budget")
    with pytest.raises(InvalidInput):
        await server.control(run, "resume", limits={"tokens": -1})
    await server.control(run, "resume", limits={"tokens": 1_000_000, "turns": 2})
    ended = await server.until(run)
    assert ended.stats.turns == 2
    assert ended.spec.limits.tokens == 500
