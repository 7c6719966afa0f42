"""Claims and leases: who may carry a run out, in which order, and when that ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from overnight.domain.run import Run
from overnight.domain.states import Input, State
from overnight.domain.worker import Worker
from overnight.errors import LeaseLost
from overnight.ids import new_host_id, new_run_id
from overnight.ports.notifier import QUEUE
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import LEASE_S, Stage


def _pks(runs: list[Run]) -> list[int]:
    return [run.pk for run in runs]


@pytest.mark.anyio
class ClaimSuite:
    """The contract of `ports.tables.LeaseTable.claim`."""

    async def test_no_run_is_given_twice(self, stage: Stage) -> None:
        runs = [await stage.run() for _ in range(40)]
        workers = [await stage.worker() for _ in range(8)]
        taken: list[Run] = []

        async def take_all(n: int) -> None:
            while found := await stage.claim(workers[n], n % 3 + 1):
                taken.extend(found)

        await asyncio.gather(*map(take_all, range(8)))
        assert sorted(_pks(taken)) == _pks(runs)
        assert {run.token for run in taken} == {1}

    async def test_highest_priority_first_then_oldest(self, stage: Stage) -> None:
        runs = [await stage.run(spec={"priority": priority}) for priority in (0, 5, -5, 5, 0)]
        backends = [await stage.run(spec={"priority": 3, "backend": "other"})]
        worker = await stage.worker()
        order = [found.pk for _ in range(9) for found in await stage.claim(worker, 1)]
        assert order == [runs[n].pk if n is not None else backends[0].pk for n in (1, 3, None, 0, 4, 2)]

    async def test_only_for_this_host_and_the_offered_backends(self, stage: Stage) -> None:
        worker = await stage.worker()
        await stage.run(spec={"backend": "unheard"})
        await stage.run(host_id=new_host_id(1))
        mine = await stage.run(spec={"backend": "other"})
        fallen = await stage.run(spec={"backend": "unheard", "fallback": ("echo/model",)}, fallback=1)
        assert _pks(await stage.claim(worker, 9, "echo")) == [fallen.pk]
        assert _pks(await stage.claim(worker, 9)) == [mine.pk]
        assert await stage.claim(worker, 9) == []

    async def test_not_before_its_time(self, stage: Stage) -> None:
        worker = await stage.worker()
        run = await stage.run(not_before=stage.clock.wall_ms() + 1000)
        assert await stage.claim(worker) == []
        stage.clock.jump_wall(999)
        assert await stage.claim(worker) == []
        stage.clock.jump_wall(1)
        assert _pks(await stage.claim(worker)) == [run.pk]

    async def test_one_run_of_a_session_at_a_time_in_order(self, stage: Stage) -> None:
        worker, session = await stage.worker(), await stage.session()
        runs = [await stage.run(session=session, spec={"priority": n}) for n in range(4)]
        assert _pks(await stage.claim(worker, 9)) == [runs[0].pk]
        waiting = (await stage.get(runs[3])).waiting_for
        assert waiting is not None
        assert waiting.kind == "session"
        await stage.move(runs[1], Input.CANCEL)
        assert await stage.claim(worker, 9) == []
        await stage.finish(runs[0])
        (second,) = await stage.claim(worker, 9)
        assert (second.pk, second.waiting_for) == (runs[2].pk, None)
        await stage.move(second, Input.PAUSE)
        await stage.move(second, Input.TURN_SETTLED)
        assert await stage.claim(worker, 9) == [], "a paused run is not over"
        await stage.move(second, Input.CANCEL)
        assert _pks(await stage.claim(worker, 9)) == [runs[3].pk]

    async def test_child_runs_do_not_wait_for_their_session(self, stage: Stage) -> None:
        worker, session = await stage.worker(), await stage.session()
        parent = await stage.run(session=session)
        child = await stage.run(session=session, parent_id=new_run_id(0))
        assert _pks(await stage.claim(worker, 9)) == [parent.pk, child.pk]

    @pytest.mark.parametrize(
        "first, second, meet",
        [
            (("1:10", "1:1"), ("1:10", "1:1"), True),
            (("1:10", "1:1"), ("1:30", "1:10", "1:1"), True),
            (("1:30", "1:10", "1:1"), ("1:10", "1:1"), True),
            (("1:10", "1:1"), ("1:20", "1:1"), False),
            (("1:10", "1:1"), ("2:10", "2:1"), False),
            (("1:10", "1:1"), (), False),
        ],
    )
    async def test_workspaces_nested_ones_too_are_locked(
        self, stage: Stage, first: tuple[str, ...], second: tuple[str, ...], meet: bool
    ) -> None:
        worker = await stage.worker()
        one, two = await stage.run(chain=first), await stage.run(chain=second)
        claimed = await stage.claim(worker, 9)
        if not meet:
            assert _pks(claimed) == [one.pk, two.pk]
            return
        assert _pks(claimed) == [one.pk]
        waiting = (await stage.get(two)).waiting_for
        assert waiting is not None
        assert waiting.kind == "workspace"
        listener = stage.notifier.subscribe(QUEUE)
        await stage.finish(one)
        assert await listener.next(5), "the end of a hold wakes the queue"
        listener.close()
        (after,) = await stage.claim(worker, 9)
        assert (after.pk, after.waiting_for) == (two.pk, None)

    async def test_shared_workspaces_exclude_only_exclusive_ones(self, stage: Stage) -> None:
        worker, chain = await stage.worker(), ("1:10", "1:1")
        shared = [await stage.run(chain=chain, spec={"workspace_lock": "shared"}) for _ in range(2)]
        alone = await stage.run(chain=chain)
        late = await stage.run(chain=chain, spec={"workspace_lock": "shared"})
        assert _pks(await stage.claim(worker, 9)) == _pks([*shared, late])
        for run in [*shared, late]:
            assert await stage.claim(worker, 9) == []
            await stage.finish(run)
        assert _pks(await stage.claim(worker, 9)) == [alone.pk]

    async def test_a_lock_lives_as_long_as_the_hold(self, stage: Stage) -> None:
        worker, chain = await stage.worker(), ("1:10",)
        one, two = await stage.run(chain=chain), await stage.run(chain=chain)
        await stage.claim(worker)
        for input in (Input.PAUSE, Input.CANCEL):
            await stage.move(one, input)
            assert await stage.claim(worker, 9) == [], f"still held after {input}"
        await stage.move(one, Input.TREE_GONE)
        assert _pks(await stage.claim(worker, 9)) == [two.pk]

    async def test_a_wait_ends_the_hold_and_the_lock(self, stage: Stage) -> None:
        worker, chain = await stage.worker(), ("1:10",)
        one, two = await stage.run(chain=chain), await stage.run(chain=chain)
        await stage.claim(worker)
        await stage.move(one, Input.WAIT)
        assert _pks(await stage.claim(worker, 9)) == [two.pk]
        await stage.move(one, Input.CONTINUE)
        assert await stage.claim(worker, 9) == []
        await stage.finish(two)
        assert _pks(await stage.claim(worker, 9)) == [one.pk]

    async def test_a_held_run_takes_its_lock_along_or_stays(self, stage: Stage) -> None:
        worker = await stage.worker()
        one, two = await stage.run(chain=("1:10",)), await stage.run()
        await stage.claim(worker, 9)
        move = stage.uow.write
        assert not await move(lambda tx: tx.runs.set_workspace(two.pk, "/a/b", ("1:30", "1:10")))
        assert (await stage.get(two)).workspace is None
        assert await move(lambda tx: tx.runs.set_workspace(one.pk, "/b", ("1:20",)))
        assert await move(lambda tx: tx.runs.set_workspace(two.pk, "/a/b", ("1:30", "1:10")))
        assert (await stage.get(two)).workspace == "/a/b"

    async def test_waiting_says_so_once(self, stage: Stage) -> None:
        worker, session = await stage.worker(), await stage.session()
        await stage.run(session=session)
        waiting = await stage.run(session=session)
        await stage.claim(worker, 9)
        change = (await stage.get(waiting)).change
        for _ in range(3):
            await stage.claim(worker, 9)
        assert (await stage.get(waiting)).change == change

    async def test_many_that_wait_do_not_hide_one_that_need_not(self, stage: Stage) -> None:
        worker, session = await stage.worker(), await stage.session()
        blocked = [await stage.run(session=session, spec={"priority": 9}) for _ in range(300)]
        free = await stage.run()
        found = _pks(await stage.claim(worker, 2))
        for _ in range(4):
            found += _pks(await stage.claim(worker, 2 - len(found))) if len(found) < 2 else []
        assert found == [blocked[0].pk, free.pk]

    async def test_handing_back_makes_it_due_again_under_a_new_token(self, stage: Stage) -> None:
        run, lease, worker = await stage.held()
        await stage.move(run, Input.HAND_BACK)
        with pytest.raises(LeaseLost):
            await stage.uow.write(lambda tx: tx.leases.check(lease))
        (again,) = await stage.claim(worker)
        assert again.token > lease.token


@pytest.mark.anyio
class LeaseSuite:
    """The contract of the rest of `ports.tables.LeaseTable`."""

    async def test_a_good_lease_gives_the_run(self, stage: Stage) -> None:
        run, lease, _ = await stage.held()
        assert (await stage.uow.write(lambda tx: tx.leases.check(lease))).pk == run.pk

    async def test_a_lease_ends_with_its_time(self, stage: Stage) -> None:
        _, lease, _ = await stage.held()
        stage.clock.suspend(LEASE_S - 0.001)
        await stage.uow.write(lambda tx: tx.leases.check(lease))
        stage.clock.suspend(0.002)
        with pytest.raises(LeaseLost, match="ran out"):
            await stage.uow.write(lambda tx: tx.leases.check(lease))

    async def test_the_wall_clock_has_no_say_in_it(self, stage: Stage) -> None:
        _, lease, _ = await stage.held()
        for jump in (86_400_000, -2 * 86_400_000):
            stage.clock.jump_wall(jump)
            await stage.uow.write(lambda tx: tx.leases.check(lease))

    async def test_adoption_shuts_the_old_holder_out(self, stage: Stage) -> None:
        run, lease, _ = await stage.held()
        other = await stage.worker()
        taken = await stage.uow.write(lambda tx: tx.leases.take(run.pk, other.pk, lease.token))
        assert taken.token == lease.token + 1
        with pytest.raises(LeaseLost, match="stale"):
            await stage.uow.write(lambda tx: tx.leases.check(lease))
        with pytest.raises(LeaseLost):
            await stage.uow.write(lambda tx: tx.leases.take(run.pk, other.pk, lease.token))
        await stage.uow.write(lambda tx: tx.leases.check(stage.lease(taken)))

    async def test_of_many_adopters_one_wins(self, stage: Stage) -> None:
        run, lease, _ = await stage.held()
        workers = [await stage.worker() for _ in range(6)]

        def take(worker: Worker, tx: Transaction) -> Run:
            return tx.leases.take(run.pk, worker.pk, lease.token)

        results = await asyncio.gather(
            *(stage.uow.write(partial(take, worker)) for worker in workers), return_exceptions=True
        )
        assert sum(isinstance(result, Run) for result in results) == 1
        assert sum(isinstance(result, LeaseLost) for result in results) == 5

    async def test_what_nobody_holds_cannot_be_adopted(self, stage: Stage) -> None:
        run, worker = await stage.run(), await stage.worker()
        with pytest.raises(LeaseLost):
            await stage.uow.write(lambda tx: tx.leases.take(run.pk, worker.pk, run.token))

    async def test_renewing_says_which_are_lost(self, stage: Stage) -> None:
        worker = await stage.worker()
        for _ in range(4):
            await stage.run()
        runs = await stage.claim(worker, 9)
        other = await stage.worker()
        await stage.uow.write(lambda tx: tx.leases.take(runs[0].pk, other.pk, runs[0].token))
        await stage.finish(runs[1])
        tokens = {run.pk: run.token for run in runs} | {999: 1}
        lost = await stage.uow.write(lambda tx: tx.leases.renew(worker.pk, tokens), urgent=True)
        assert lost == {runs[0].pk, runs[1].pk, 999}
        assert await stage.uow.write(lambda tx: tx.leases.renew(worker.pk, {})) == frozenset()

    async def test_only_what_is_named_is_renewed(self, stage: Stage) -> None:
        worker = await stage.worker()
        for _ in range(2):
            await stage.run()
        kept, forgotten = await stage.claim(worker, 9)
        before = {held.run.pk: held.renewal for held in await stage.uow.read(lambda tx: tx.leases.held())}
        await stage.uow.write(lambda tx: tx.leases.renew(worker.pk, {kept.pk: kept.token}))
        after = {held.run.pk: held.renewal for held in await stage.uow.read(lambda tx: tx.leases.held())}
        assert after == {kept.pk: before[kept.pk] + 1, forgotten.pk: before[forgotten.pk]}

    async def test_held_runs_of_a_host(self, stage: Stage) -> None:
        run, _, worker = await stage.held()
        await stage.run()
        (held,) = await stage.uow.read(lambda tx: tx.leases.held(stage.host))
        assert (held.run, held.worker_pk) == (await stage.get(run), worker.pk)
        assert await stage.uow.read(lambda tx: tx.leases.held(new_host_id(1))) == ()
        await stage.finish(run)
        assert await stage.uow.read(lambda tx: tx.leases.held()) == ()

    async def test_dropping_twice_is_dropping_once(self, stage: Stage) -> None:
        run, lease, _ = await stage.held()
        await stage.uow.write(lambda tx: tx.leases.drop(run.pk))
        token = (await stage.get(run)).token
        await stage.uow.write(lambda tx: tx.leases.drop(run.pk))
        assert token > lease.token
        assert (await stage.get(run)).token == token

    async def test_a_run_that_lost_its_hold_but_not_its_state_is_still_found(self, stage: Stage) -> None:
        run, _, worker = await stage.held()
        await stage.move(run, Input.CANCEL)
        await stage.uow.write(lambda tx: tx.leases.drop(run.pk))
        (held,) = await stage.uow.read(lambda tx: tx.leases.held())
        assert (held.run.state, held.worker_pk) == (State.CANCELLING, None)
        taken = await stage.uow.write(lambda tx: tx.leases.take(run.pk, worker.pk, held.run.token))
        assert taken.token == held.run.token + 1

    async def test_an_old_holder_cannot_end_the_run_of_the_new_one(self, stage: Stage) -> None:
        run, lease, worker = await stage.held()
        await stage.uow.write(lambda tx: tx.leases.take(run.pk, worker.pk, lease.token))
        stale = replace(lease, trusted_until=lease.trusted_until + 1000)
        with pytest.raises(LeaseLost):
            await stage.uow.write(lambda tx: tx.runs.save(tx.leases.check(stale).moved(Input.COMPLETE, 1)))
        assert (await stage.get(run)).state is State.RUNNING
