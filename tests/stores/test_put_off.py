"""Rows that are written together at the end of a transaction: each unit keeps its own, and reads what it has to."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from overnight.domain.event import Draft
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.spec import RunSpec
from overnight.domain.states import Input, State
from overnight.errors import LeaseLost, NotFound
from overnight.ids import new_run_id
from overnight.ports.notifier import CHANGES, QUEUE
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Transaction
from overnight.stores.sql import writer
from overnight.testing.conformance.stage import Stage

pytestmark = pytest.mark.anyio
Submit = Callable[[Any], Run]


@pytest.fixture(params=["stage", "postgres_stage"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """What waits is taken in, however slow this machine is: so it is known what is in one transaction."""
    monkeypatch.setattr(writer, "BATCH_S", 5.0)
    found: Stage = request.getfixturevalue(request.param)
    return found


async def together(stage: Stage, *units: Any) -> list[Any]:
    """All units in one transaction: the first holds it open until the rest have come."""
    gate = threading.Event()
    calls = [asyncio.ensure_future(stage.uow.write(unit)) for unit in (lambda _: gate.wait(60), *units)]
    await asyncio.sleep(0)
    gate.set()
    return (await asyncio.gather(*calls, return_exceptions=True))[1:]


def submitter(stage: Stage, session: Session | None = None, **changes: Any) -> Submit:
    """Makes a run with an event, in a session of its own unless one is given, and reads nothing."""

    def unit(tx: Transaction) -> Run:
        now = stage.clock.wall_ms()
        there = session or stage.add_session(tx)
        values: dict[str, Any] = {
            "pk": 0, "id": new_run_id(now), "owner": "usr_local", "state": State.QUEUED,
            "spec": RunSpec(goal="Do it.", backend="echo", labels={"team": "a"}), "session_pk": there.pk,
            "session_id": there.id, "host_id": stage.host, "workspace": None, "created_at": now, "updated_at": now,
        } | changes  # fmt: skip
        run = tx.runs.add(Run(**values), secret_environment={"A": "b"}, idempotency=None)
        tx.events.append(run.pk, [Draft(type="run.queued", data={"n": n}) for n in range(2)], now)
        tx.events.append(run.pk, [Draft(type="run.started")], now)
        tx.events.append(there.pk, [Draft(type="run.linked", data={"run_id": run.id})], now)
        return run

    return unit


async def is_whole(stage: Stage, run: Run) -> bool:
    """Whether all that belongs to a run is there."""

    def query(tx: Transaction) -> bool:
        found = tx.runs.lock(run.pk)
        types = [event.type for event in tx.events.after(run.pk, 0, 9)]
        linked = tx.events.after(run.session_pk, 0, 9)
        return (
            (found.id, found.last_seq, found.spec.labels) == (run.id, 3, {"team": "a"})
            and types == ["run.queued", "run.queued", "run.started"]
            and tx.runs.secret_environment(run.pk) == {"A": "b"}
            and any(run.id.encode() in event.body for event in linked)
            and tx.sessions.lock(run.session_pk).id == run.session_id
        )

    return await stage.uow.read(query)


async def test_all_of_a_batch_is_written(both: Stage) -> None:
    """More than are written at once, and a number that fits no size."""
    session = await both.session()
    units = [submitter(both) for _ in range(37)] + [submitter(both, session) for _ in range(3)]
    found = await together(both, *units)
    assert [await is_whole(both, run) for run in found] == [True] * 40
    assert len({run.pk for run in found}) == 40
    mark = await both.uow.read(lambda tx: tx.events.mark(session.pk))
    assert (mark.first, mark.last) == (1, 3)


async def test_a_unit_that_fails_takes_its_own_rows_alone(both: Stage) -> None:
    lost: list[Run] = []

    def fails(tx: Transaction) -> None:
        lost.append(submitter(both)(tx))
        raise LeaseLost("meanwhile")

    found = await together(both, submitter(both), fails, submitter(both), fails)
    assert [type(each) for each in found] == [Run, LeaseLost, Run, LeaseLost]
    assert [await is_whole(both, found[0]), await is_whole(both, found[2])] == [True, True]
    for run in lost:
        with pytest.raises(NotFound):
            await both.uow.read(lambda tx, run=run: tx.runs.get(run.id, None))  # type: ignore[misc]


async def test_a_unit_sees_what_it_and_others_before_it_have_made(both: Stage) -> None:
    made: list[Run] = []

    def makes(tx: Transaction) -> Run:
        made.append(submitter(both)(tx))
        return made[-1]

    def looks(tx: Transaction) -> tuple[str, str, int, int]:
        own = submitter(both)(tx)
        earlier = tx.runs.lock(made[-1].pk)
        later = tx.runs.get(own.id, None)
        tx.events.append(earlier.pk, [Draft(type="run.steered")], both.clock.wall_ms())
        return earlier.id, later.id, len(tx.events.after(earlier.pk, 0, 9)), tx.runs.lock(earlier.pk).last_seq

    found = await together(both, makes, looks, makes)
    assert found[1][0] == made[0].id
    assert found[1][2:] == (4, 4)
    assert await is_whole(both, found[2])


async def test_what_others_have_made_outlives_the_unit_that_asked_for_it(both: Stage) -> None:
    """Their rows were written behind its savepoint, to which it goes back."""
    made: list[Run] = []

    def makes(tx: Transaction) -> Run:
        made.append(submitter(both)(tx))
        return made[-1]

    def asks_and_fails(tx: Transaction) -> None:
        tx.installation.put("changed", "1")
        submitter(both)(tx)
        assert tx.runs.lock(made[-1].pk).id == made[-1].id
        tx.events.append(made[-1].pk, [Draft(type="run.steered")], both.clock.wall_ms())
        raise LeaseLost("meanwhile")

    found = await together(both, makes, asks_and_fails, makes, asks_and_fails, makes)
    assert [type(each) for each in found] == [Run, LeaseLost, Run, LeaseLost, Run]
    assert [await is_whole(both, run) for run in found[::2]] == [True] * 3
    assert await both.uow.read(lambda tx: tx.installation.get("changed")) is None
    assert sum((await both.uow.read(lambda tx: tx.runs.counts(RunFilter()))).values()) == 3


async def test_what_the_database_refuses_at_the_end_is_said_to_its_unit_alone(both: Stage) -> None:
    """Two runs with one id: the second unit hears of it, though nothing was written when it ended."""
    taken = new_run_id(both.clock.wall_ms())
    units = [submitter(both), submitter(both, id=taken), submitter(both, id=taken), submitter(both)]
    found = await together(both, *units)
    assert [isinstance(each, Run) for each in found] == [True, True, False, True]
    assert "uq_runs_id" in str(found[2]) or "runs.id" in str(found[2])
    assert [await is_whole(both, run) for run in (found[0], found[1], found[3])] == [True] * 3


async def test_a_lane_of_a_unit_that_failed_is_not_remembered(both: Stage) -> None:
    def fails(tx: Transaction) -> None:
        submitter(both)(tx)
        raise LeaseLost("meanwhile")

    await together(both, fails, fails)
    run = await both.uow.write(submitter(both))
    worker = await both.worker()
    assert [one.pk for one in await both.claim(worker)] == [run.pk]


async def test_what_is_only_known_at_the_end_is_still_said_by_its_unit(both: Stage) -> None:
    """Whether anybody waits for the place that a run has left is asked for, and waited for by nobody."""
    (first, _, _), (second, _, _) = await both.held(), await both.held()

    def finishes(run: Run) -> Any:
        return lambda tx: tx.runs.save(tx.runs.lock(run.pk).moved(Input.COMPLETE, both.clock.wall_ms()))

    def fails(tx: Transaction) -> None:
        finishes(second)(tx)
        raise LeaseLost("meanwhile")

    async def told(*units: Any) -> bool:
        listener = both.notifier.subscribe(QUEUE, CHANGES)
        await together(both, *units, lambda tx: tx.notify(CHANGES))
        topics = {notice.topic for notice in await listener.next(20)}
        listener.close()
        return QUEUE in topics

    assert not await told(fails), "nobody waits"
    waiting = await both.run(spec={"backend": "nobody"})
    assert await told(finishes(first), fails)
    assert (await both.uow.read(lambda tx: tx.runs.lock(second.pk))).state is State.RUNNING
    assert (await both.uow.read(lambda tx: tx.runs.lock(waiting.pk))).state is State.QUEUED
