"""Runs as records: round trips, pages, counts, filters, owners, changes, idempotency, removal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.domain.event import Draft
from overnight.domain.request import SYSTEM
from overnight.domain.run import Run, Turn
from overnight.domain.session import SessionMessage
from overnight.domain.states import Input, State, TurnState
from overnight.domain.values import (
    Cancellation,
    Completion,
    Failure,
    FileStats,
    Now,
    Stats,
    TestStats,
    Usage,
    WaitingFor,
)
from overnight.errors import Conflict, NotFound, RunNotFinal
from overnight.ids import RunId, new_run_id, new_worker_id
from overnight.ports.notifier import CHANGES, QUEUE
from overnight.ports.tables import Idempotency, RunFilter
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

ME, OTHER = "usr_local", "usr_other"


async def _ids(stage: Stage, **asked: object) -> list[str]:
    page = await stage.uow.read(lambda tx: tx.runs.page(RunFilter(**asked), limit=99))  # type: ignore[arg-type]
    return [run.id for run in page.runs]


@pytest.mark.anyio
class RecordSuite:
    """The contract of `ports.tables.RunTable`."""

    async def test_every_field_comes_back_as_it_was_saved(self, stage: Stage) -> None:
        run = await stage.run(
            spec={"labels": {"a": "b"}, "fallback": ("x/y",), "limits": {"turns": 3}, "priority": 7},
            parent_id=new_run_id(1),
            retry_of=new_run_id(2),
        )
        changed = replace(
            run,
            state=State.FAILED,
            workspace="/somewhere",
            worker=new_worker_id(3),
            pid=42,
            updated_at=run.updated_at + 1,
            started_at=5,
            ended_at=6,
            attempt=2,
            turn=3,
            fallback=1,
            stats=Stats(
                turns=2,
                usage=Usage(input=5, cached=1, output=2, reasoning=1, cost_usd=0.25),
                files=FileStats(changed=1, added=2, removed=3),
                tests=TestStats(passed=1, failed=2, skipped=3),
                wall_ms=77,
            ),
            idle_turns=1,
            completion=Completion(by="pattern", line="DONE ÄÖ"),
            error=Failure(code="c", message="m", retryable=True, retry_at=9),
            waiting_for=WaitingFor(kind="budget", approval_id="apr", detail="d"),
            waiting_until=8,
            pause_reason="budget",
            cancellation=Cancellation(reason="deadline", steps=("sigterm",), survivors=0),
            not_before=4,
            sandbox_effective="full",
            now=Now(item="i", text="t", since=3),
        )
        saved = await stage.uow.write(lambda tx: tx.runs.save(changed))
        assert saved.change > run.change
        assert await stage.get(run) == replace(changed, change=saved.change)
        assert (await stage.get(run)).target == ("x", "y")

    async def test_the_token_is_not_moved_by_saving(self, stage: Stage) -> None:
        run, lease, _ = await stage.held()
        await stage.uow.write(lambda tx: tx.runs.save(replace(run, token=99)))
        assert (await stage.get(run)).token == lease.token

    async def test_final_states_carry_their_end_and_others_do_not(self, stage: Stage) -> None:
        run = await stage.run()
        for wrong in (replace(run, state=State.COMPLETED), replace(run, ended_at=5)):
            with pytest.raises(Exception, match=r"(?i)constraint"):
                await stage.uow.write(lambda tx: tx.runs.save(wrong))
        assert await stage.get(run) == run

    async def test_pages_are_newest_first_and_stable_under_inserts(self, stage: Stage) -> None:
        made: list[str] = []
        for n in range(7):
            stage.clock.jump_wall(n % 2)  # some share their millisecond
            made.append((await stage.run()).id)
        seen, cursor = list[str](), None
        while True:
            page = await stage.uow.read(lambda tx: tx.runs.page(RunFilter(), limit=2, after=cursor))
            seen += [run.id for run in page.runs]
            await stage.run()
            if page.next is None:
                break
            cursor = page.next
        assert seen == list(reversed(made))

    async def test_the_last_page_has_no_cursor(self, stage: Stage) -> None:
        for _ in range(4):
            await stage.run()
        page = await stage.uow.read(lambda tx: tx.runs.page(RunFilter(), limit=4))
        assert (len(page.runs), page.next) == (4, None)

    async def test_filters(self, stage: Stage) -> None:
        session = await stage.session()
        first = await stage.run(session=session, spec={"labels": {"team": "a", "x": "1"}})
        stage.clock.jump_wall(10)
        second = await stage.run(spec={"mode": "oneshot", "backend": "other", "labels": {"team": "b"}})
        await stage.move(second, Input.CANCEL)
        assert await _ids(stage, session_id=session.id) == [first.id]
        assert await _ids(stage, labels={"team": "a", "x": "1"}) == [first.id]
        assert await _ids(stage, labels={"team": "a", "x": "2"}) == []
        assert await _ids(stage, mode="oneshot") == [second.id]
        assert await _ids(stage, backend="other") == [second.id]
        assert await _ids(stage, states=(State.CANCELLED, State.FAILED)) == [second.id]
        assert await _ids(stage, since=second.created_at) == [second.id]
        assert await _ids(stage, ids=(first.id, "run_nobody")) == [first.id]

    async def test_text_is_taken_literally_and_without_case(self, stage: Stage) -> None:
        goals = ["100% of it", "100 of it", "snake_case", "snakeXcase", "Straße ÄNDERN", r"back\slash"]
        ids = {goal: (await stage.run(spec={"goal": goal})).id for goal in goals}
        assert await _ids(stage, text="100%") == [ids["100% of it"]]
        assert await _ids(stage, text="SNAKE_c") == [ids["snake_case"]]
        assert await _ids(stage, text="ändern") == [ids["Straße ÄNDERN"]]
        assert await _ids(stage, text="STRASSE") == [ids["Straße ÄNDERN"]]
        assert await _ids(stage, text=r"K\S") == [ids[r"back\slash"]]
        assert await stage.uow.read(lambda tx: tx.runs.counts(RunFilter(text="%"))) == {State.QUEUED: 1}

    async def test_counts(self, stage: Stage) -> None:
        runs = [await stage.run(spec={"labels": {"n": str(n % 2)}}) for n in range(5)]
        await stage.move(runs[0], Input.CANCEL)
        count = await stage.uow.read(lambda tx: tx.runs.counts(RunFilter()))
        assert count == {State.QUEUED: 4, State.CANCELLED: 1}
        assert await stage.uow.read(lambda tx: tx.runs.counts(RunFilter(labels={"n": "0"}))) == {
            State.QUEUED: 2,
            State.CANCELLED: 1,
        }

    async def test_owners_do_not_see_each_other(self, stage: Stage) -> None:
        mine, theirs = await stage.run(owner=ME), await stage.run(owner=OTHER)
        session = await stage.session(owner=OTHER)
        assert await _ids(stage, owner=ME) == [mine.id]
        assert await _ids(stage, owner=ME, ids=(theirs.id,)) == []
        assert sorted(await _ids(stage)) == sorted([mine.id, theirs.id])
        for reading in (
            lambda tx: tx.runs.get(theirs.id, ME),
            lambda tx: tx.sessions.get(session.id, ME),
        ):
            with pytest.raises(NotFound):
                await stage.uow.read(reading)
        assert (await stage.uow.read(lambda tx: tx.runs.get(theirs.id, OTHER))).pk == theirs.pk
        assert (await stage.uow.read(lambda tx: tx.runs.counts(RunFilter(owner=ME)))) == {State.QUEUED: 1}
        changed = await stage.uow.read(lambda tx: tx.runs.changed_after(0, ME, 99))
        assert [run.id for run in changed] == [mine.id]

    async def test_changes_come_in_order_once_each_with_the_newest_state(self, stage: Stage) -> None:
        first, second = await stage.run(), await stage.run()
        start = await stage.uow.read(lambda tx: tx.runs.last_change())
        assert await stage.uow.read(lambda tx: tx.runs.changed_after(start, None, 9)) == ()
        await stage.move(second, Input.PAUSE)
        await stage.move(first, Input.PAUSE)
        await stage.move(second, Input.RESUME)
        changed = await stage.uow.read(lambda tx: tx.runs.changed_after(start, None, 9))
        assert [(run.id, run.state) for run in changed] == [
            (first.id, State.PAUSED),
            (second.id, State.QUEUED),
        ]
        assert await stage.uow.read(lambda tx: tx.runs.last_change()) == changed[-1].change

    async def test_adding_wakes_the_queue_and_the_summaries(self, stage: Stage) -> None:
        listener = stage.notifier.subscribe(QUEUE, CHANGES)
        await stage.run()
        assert {notice.topic for notice in await listener.next(5)} == {QUEUE, CHANGES}
        listener.close()

    async def test_secret_values_are_kept_apart_from_the_run(self, stage: Stage) -> None:
        run = await stage.run(environment={"KEY": "hush"}, spec={"environment": {"KEY": "***"}})
        assert "hush" not in repr(await stage.get(run))
        assert await stage.uow.read(lambda tx: tx.runs.secret_environment(run.pk)) == {"KEY": "hush"}

    async def test_an_idempotency_key_makes_one_run_for_its_owner_and_route(self, stage: Stage) -> None:
        key = Idempotency(route="POST /runs", key="k", body_hash="h")
        run = await stage.run(idempotency=key)
        found = await stage.uow.read(lambda tx: tx.runs.same_request(ME, "POST /runs", "k"))
        assert found is not None
        assert (found[0], found[1].id) == (key, run.id)
        with pytest.raises(Conflict):
            await stage.run(idempotency=key)
        await stage.run(owner=OTHER, idempotency=key)
        await stage.run(idempotency=replace(key, route="POST /other"))
        assert await stage.uow.read(lambda tx: tx.runs.same_request(ME, "POST /runs", "none")) is None

    async def test_unknown_runs(self, stage: Stage) -> None:
        nobody = RunId(new_run_id(0))
        for reading in (
            lambda tx: tx.runs.get(nobody, None),
            lambda tx: tx.runs.lock(999),
            lambda tx: tx.runs.secret_environment(999),
        ):
            with pytest.raises(NotFound):
                await stage.uow.read(reading)

    async def test_a_run_that_lives_is_not_removed(self, stage: Stage) -> None:
        run = await stage.run()
        with pytest.raises(RunNotFinal):
            await stage.uow.write(lambda tx: tx.runs.delete(run.pk))

    async def test_removing_leaves_nothing_of_the_run(self, stage: Stage) -> None:
        key = Idempotency(route="r", key="k", body_hash="h")
        run, _, _ = await stage.held(idempotency=key, chain=("1:1", "1:2"), spec={"labels": {"a": "b"}})
        await stage.uow.write(lambda tx: _fill(tx, run))
        await stage.finish(run)
        assert await stage.uow.write(lambda tx: tx.runs.delete(run.pk)) == run.id

        def left(tx: Transaction) -> list[object]:
            return [
                tx.runs.same_request(ME, "r", "k"),
                *tx.events.after(run.pk, 0, 9),
                *tx.turns.page(run.pk),
                *tx.turns.inputs(run.pk, 1, 1, 0),
                *tx.requests.pending(run.pk),
                *tx.leases.held(),
                *tx.sessions.messages(run.session_pk, 9),
                *tx.runs.page(RunFilter(labels={"a": "b"}), limit=9).runs,
            ]

        assert await stage.uow.read(left) == [None]
        for reading in (
            lambda tx: tx.runs.get(run.id, None),
            lambda tx: tx.events.mark(run.pk),
            lambda tx: tx.sessions.get(run.session_id, None),
        ):
            with pytest.raises(NotFound):
                await stage.uow.read(reading)
        later = await stage.run()
        assert later.pk > run.pk, "keys are not given out again"

    async def test_a_session_outlives_its_runs_unless_it_was_made_for_one(self, stage: Stage) -> None:
        kept, made = await stage.session(made_for_run=False), await stage.session()
        for session in (kept, made):
            runs = [await stage.run(session=session) for _ in range(2)]
            for run in runs:
                await stage.move(run, Input.CANCEL)
            await stage.uow.write(lambda tx: tx.runs.delete(runs[0].pk))
            await stage.uow.read(lambda tx: tx.sessions.get(session.id, None))
            await stage.uow.write(lambda tx: tx.runs.delete(runs[1].pk))
        await stage.uow.read(lambda tx: tx.sessions.get(kept.id, None))
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.sessions.get(made.id, None))

    async def test_housekeeping_finds_what_is_due(self, stage: Stage) -> None:
        runs = [await stage.run() for _ in range(3)]
        for run in runs[:2]:
            stage.clock.jump_wall(1000)
            await stage.move(run, Input.CANCEL)
        now = stage.clock.wall_ms()
        assert await stage.uow.read(lambda tx: tx.installation.expired_runs(now + 1, 9)) == (
            runs[0].pk,
            runs[1].pk,
        )
        assert await stage.uow.read(lambda tx: tx.installation.expired_runs(now, 9)) == (runs[0].pk,)
        assert await stage.uow.read(lambda tx: tx.installation.expired_runs(now + 1, 1)) == (runs[0].pk,)


def _fill(tx: Transaction, run: Run) -> None:
    tx.turns.open(
        Turn(
            run_pk=run.pk,
            number=1,
            attempt=1,
            state=TurnState.STARTED,
            backend="echo",
            token=1,
            folder="f",
            started_at=1,
            first_seq=2,
        )
    )
    tx.turns.add_input(run.pk, 1, 1, 1, b"x")
    tx.requests.add(run.pk, "pause", {}, SYSTEM, 1)
    tx.events.append(run.pk, [Draft(type="turn.started")], 1)
    tx.sessions.add_message(run.session_pk, SessionMessage(role="user", text="t", at=1))
    tx.sessions.save_backend_state(run.session_pk, "echo", {"a": 1})
