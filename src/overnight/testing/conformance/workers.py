"""Workers: drained, put into quarantine, released; and what the database says of their leases."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.states import Input
from overnight.domain.worker import QUARANTINE_WITHIN_MS, Action, Worker
from overnight.errors import Conflict, NotFound
from overnight.ids import new_worker_id
from overnight.ports.notifier import QUEUE
from overnight.testing.conformance.stage import Stage


async def found(stage: Stage, worker: Worker) -> Worker:
    """The worker as it is now."""
    return next(one for one in await stage.uow.read(lambda tx: tx.workers.all()) if one.pk == worker.pk)


async def ask(stage: Stage, worker: Worker, action: Action, reason: str | None = None) -> Worker:
    """What a person asks of it."""
    at = stage.clock.wall_ms()
    return await stage.uow.write(lambda tx: tx.workers.act(worker.id, action, by="ada", reason=reason, at=at))


async def tell(stage: Stage, worker: Worker, state: str) -> None:
    """What others found out about it."""
    await stage.uow.write(lambda tx: tx.workers.set_state(worker.id, state, stage.clock.wall_ms()))


async def fault(stage: Stage, worker: Worker, after: int = 3) -> bool:
    """It could not even begin."""
    at = stage.clock.wall_ms()
    return await stage.uow.write(
        lambda tx: tx.workers.fault(worker.pk, "preflight_failed", at, quarantine_after=after)
    )


@pytest.mark.anyio
class WorkerSuite:
    """The contract of `ports.worker_tables.WorkerTable`, and what a claim makes of it."""

    async def test_all_that_it_says_of_itself_is_kept(self, stage: Stage) -> None:
        worker = await stage.worker(labels={"gpu": "a100"}, places=("root:/srv",))
        await stage.run()
        await stage.claim(worker)
        kept = await found(stage, worker)
        assert (dict(kept.labels), kept.places, kept.busy, kept.state) == (
            {"gpu": "a100"},
            ("root:/srv",),
            1,
            "active",
        )

    async def test_a_drained_worker_keeps_what_it_has_and_gets_no_more(self, stage: Stage) -> None:
        run, lease, worker = await stage.held()
        listener = stage.notifier.subscribe(QUEUE)
        drained = await ask(stage, worker, "drain", "new disk")
        assert await listener.next(5)
        listener.close()
        assert (drained.state, drained.reason, drained.changed_by) == ("draining", "new disk", "ada")
        assert drained.changed_at == stage.clock.wall_ms()
        await stage.run()
        assert await stage.claim(worker, 9) == []
        assert (
            await stage.uow.write(lambda tx: tx.leases.renew(worker.pk, {run.pk: lease.token})) == frozenset()
        )
        assert (await ask(stage, worker, "drain")).reason == "new disk", "asking again changes nothing"
        resumed = await ask(stage, worker, "resume")
        assert (resumed.state, resumed.reason, resumed.changed_by) == ("active", None, "ada")
        assert len(await stage.claim(worker, 9)) == 1

    async def test_who_keeps_failing_gets_no_more_until_it_is_released(self, stage: Stage) -> None:
        worker = await stage.worker()
        assert [await fault(stage, worker) for _ in range(3)] == [False, False, True]
        shut_out = await found(stage, worker)
        assert (shut_out.state, shut_out.changed_by) == ("quarantined", "overnight")
        assert shut_out.reason == "3 failures in a row, the last: preflight_failed"
        run = await stage.run()
        assert await stage.claim(worker, 9) == []
        refused: tuple[Action, ...] = ("drain", "resume")
        for action in refused:
            with pytest.raises(Conflict, match="quarantined"):
                await ask(stage, worker, action)
        assert (await ask(stage, worker, "release")).state == "active"
        assert [one.pk for one in await stage.claim(worker, 9)] == [run.pk]
        assert not await fault(stage, worker), "it starts afresh"

    async def test_what_went_well_ends_the_row(self, stage: Stage) -> None:
        worker = await stage.worker()
        for _ in range(3):
            assert not await fault(stage, worker)
            assert not await fault(stage, worker)
            await stage.uow.write(lambda tx: tx.workers.went_well(worker.pk))

    async def test_failures_that_lie_far_apart_are_no_row(self, stage: Stage) -> None:
        worker = await stage.worker()
        for _ in range(6):
            assert not await fault(stage, worker)
            stage.clock.jump_wall(QUARANTINE_WITHIN_MS // 2)

    async def test_none_is_enough_where_nobody_wants_it(self, stage: Stage) -> None:
        worker = await stage.worker()
        assert not any([await fault(stage, worker, after=0) for _ in range(9)])

    async def test_a_restart_forgets_nothing(self, stage: Stage) -> None:
        worker = await stage.worker()
        for _ in range(2):
            await fault(stage, worker)
        again = await stage.worker(quarantine_after=3)
        assert again.state == "active"
        assert await fault(stage, again)
        third = await stage.worker(quarantine_after=3)
        assert (third.state, third.reason) == (
            "quarantined",
            "3 failures in a row, the last: preflight_failed",
        )
        await ask(stage, third, "release")
        assert (await stage.worker(quarantine_after=3)).state == "active"

    @pytest.mark.parametrize(
        "action, state", [("drain", "draining"), ("fault", "quarantined"), ("resume", "active")]
    )
    async def test_who_was_taken_for_gone_is_what_it_was_before(
        self, stage: Stage, action: Action | Literal["fault"], state: str
    ) -> None:
        worker = await stage.worker()
        if action == "fault":
            await fault(stage, worker, after=1)
        else:
            await ask(stage, worker, action)
        await tell(stage, worker, "gone")
        await tell(stage, worker, "active")
        assert (await found(stage, worker)).state == state

    async def test_a_seat_is_there_however_long_its_worker_was_gone(self, stage: Stage) -> None:
        """A machine that slept over the weekend comes back as who it was."""
        made = replace(await stage.worker(), id=new_worker_id(9))
        seat = await stage.uow.write(lambda tx: tx.remote.sit(made, 7))
        await tell(stage, seat.worker, "gone")
        stage.clock.jump_wall(3 * 86_400_000)
        again = await stage.uow.write(lambda tx: tx.remote.sit(made, 7))
        assert (again.worker.pk, again.worker.state) == (seat.worker.pk, "gone")
        assert await stage.uow.read(lambda tx: tx.remote.seats(made.host_id, 7)) == (again,)

    async def test_a_new_seat_on_a_host_that_keeps_failing_begins_in_quarantine(self, stage: Stage) -> None:
        worker = await stage.worker()
        for _ in range(3):
            await fault(stage, worker)
        made = replace(worker, id=new_worker_id(9))
        seat = await stage.uow.write(lambda tx: tx.remote.sit(made, 7, quarantine_after=3))
        assert seat.worker.state == "quarantined"

    async def test_who_has_been_gone_for_long_is_forgotten_unless_it_holds_something(
        self, stage: Stage
    ) -> None:
        """Every start of a process leaves a row behind, and nobody asks for it after a while."""
        here = await stage.worker()
        holder, *idle = [await stage.worker() for _ in range(3)]
        seat = await stage.uow.write(lambda tx: tx.remote.sit(replace(here, id=new_worker_id(9)), 7))
        await stage.run()
        await stage.claim(holder)
        gone = [holder, *idle, seat.worker]
        for worker in gone:
            await tell(stage, worker, "gone")
        await fault(stage, here)
        last = stage.clock.wall_ms()
        check = BackendCheck(name="echo", status="ok", capabilities=Capabilities(), checked_at=last)
        await stage.uow.write(lambda tx: tx.workers.save_check(here.host_id, check))
        assert await stage.uow.write(lambda tx: tx.workers.forget(last, 9)) == 0, "not before their time"
        assert await stage.uow.write(lambda tx: tx.workers.forget(last + 1, 2)) == 2
        assert await stage.uow.write(lambda tx: tx.workers.forget(last + 1, 9)) == 1
        left = await stage.uow.read(lambda tx: tx.workers.all())
        assert {worker.pk for worker in left} == {here.pk, holder.pk}
        assert await stage.uow.read(lambda tx: tx.remote.seats(here.host_id, 7)) == ()
        again = await stage.uow.write(lambda tx: tx.remote.sit(seat.worker, 7))
        assert again.worker.pk not in {worker.pk for worker in (*gone, here)}
        assert not await fault(stage, here, after=2), "old failures are forgotten too"
        assert await stage.uow.read(lambda tx: tx.workers.checks(None)) == ()

    async def test_the_gone_and_the_unknown_cannot_be_asked(self, stage: Stage) -> None:
        worker = await stage.worker()
        await tell(stage, worker, "gone")
        with pytest.raises(Conflict, match="gone"):
            await ask(stage, worker, "drain")
        with pytest.raises(NotFound):
            await stage.uow.write(
                lambda tx: tx.workers.act(new_worker_id(5), "drain", by="ada", reason=None, at=0)
            )


@pytest.mark.anyio
class ExpirySuite:
    """Leases end by the database's clock, besides the clocks of those who look."""

    async def test_a_lease_lasts_as_long_as_its_holder_says(self, stage: Stage) -> None:
        worker = await stage.worker()
        for lease_s in (3600.0, 0.0):
            await stage.run()
            await stage.claim(worker, 1, lease_s=lease_s)
        long, short = await stage.uow.read(lambda tx: tx.leases.held())
        assert not long.expired
        assert short.expired
        standing = await stage.uow.read(lambda tx: tx.leases.standing())
        told = {(one.run_pk, one.token, one.worker_pk, one.renewal, one.expired) for one in standing}
        assert told == {
            (one.run.pk, one.run.token, one.worker_pk, one.renewal, one.expired) for one in (long, short)
        }
        taken = await stage.uow.write(
            lambda tx: tx.leases.take(short.run.pk, worker.pk, short.run.token, lease_s=3600.0)
        )
        assert taken.token == short.run.token + 1
        assert [held.expired for held in await stage.uow.read(lambda tx: tx.leases.held())] == [False, False]

    async def test_a_renewal_lasts_as_long_as_the_claim(self, stage: Stage) -> None:
        worker = await stage.worker()
        await stage.run()
        (run,) = await stage.claim(worker, 1, lease_s=3600.0)
        await stage.uow.write(lambda tx: tx.leases.renew(worker.pk, {run.pk: run.token}))
        (held,) = await stage.uow.read(lambda tx: tx.leases.held())
        assert not held.expired

    async def test_what_was_let_go_without_an_end_has_no_lease_to_wait_for(self, stage: Stage) -> None:
        run, _, _ = await stage.held()
        await stage.move(run, Input.CANCEL)
        await stage.uow.write(lambda tx: tx.leases.drop(run.pk))
        (held,) = await stage.uow.read(lambda tx: tx.leases.held())
        assert held.expired
