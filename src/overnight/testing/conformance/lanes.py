"""Lanes: which runs a worker may take at all, and whose turn it is among them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from overnight.domain.placement import ANYWHERE, at_host, at_root
from overnight.domain.run import Run
from overnight.domain.spec import GitWorkspace
from overnight.domain.states import Input
from overnight.domain.values import WaitingFor
from overnight.domain.worker import Worker, why_unserved
from overnight.ids import new_host_id, new_run_id
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

ROOT = "/srv/shared"


def pks(runs: list[Run]) -> list[int]:
    """Which runs."""
    return [run.pk for run in runs]


async def elsewhere(stage: Stage, n: int, **changes: Any) -> Worker:
    """A worker of another host."""
    return await stage.worker(host_id=new_host_id(n), **changes)


@pytest.mark.anyio
class LaneSuite:
    """The contract of `ports.tables.LeaseTable` about placement."""

    async def test_what_can_be_anywhere_goes_to_any_host_which_is_its_host_then(self, stage: Stage) -> None:
        here, there = await stage.worker(), await elsewhere(stage, 1)
        runs = [await stage.run(place=ANYWHERE, spec={"workspace": GitWorkspace(git="u")}) for _ in range(2)]
        (first,), (second,) = await stage.claim(there), await stage.claim(here)
        assert [first.pk, second.pk] == pks(runs)
        assert [first.host_id, second.host_id] == [there.host_id, here.host_id]
        assert (await stage.get(first)).host_id == there.host_id
        assert first.place == ANYWHERE, "a checkout can be made again"

    async def test_a_scratch_folder_keeps_its_run_on_the_host_where_it_began(self, stage: Stage) -> None:
        here, there = await stage.worker(), await elsewhere(stage, 1)
        run = await stage.run(place=ANYWHERE)
        (begun,) = await stage.claim(there)
        assert begun.place == at_host(there.host_id)
        await stage.move(begun, Input.HAND_BACK)
        assert await stage.claim(here, 9) == []
        assert pks(await stage.claim(there, 9)) == [run.pk]

    async def test_a_directory_goes_only_to_its_host(self, stage: Stage) -> None:
        here, there = await stage.worker(), await elsewhere(stage, 1)
        run = await stage.run(spec={"workspace": "/w"}, chain=("1:1",))
        assert run.place == at_host(stage.host)
        assert await stage.claim(there, 9) == []
        assert pks(await stage.claim(here, 9)) == [run.pk]

    async def test_a_shared_root_goes_to_whoever_reaches_it(self, stage: Stage) -> None:
        here, there = await stage.worker(), await elsewhere(stage, 1, places=(at_root(ROOT),))
        run = await stage.run(place=at_root(ROOT), spec={"workspace": f"{ROOT}/a"})
        assert await stage.claim(here, 9) == []
        assert pks(await stage.claim(there, 9)) == [run.pk]

    @pytest.mark.parametrize(
        "one, two, meet",
        [("a", "a", True), ("a", "a/b", True), ("a/b", "a", True), ("", "a", True), ("a", "ab", False)],
    )
    async def test_two_hosts_are_never_in_the_same_shared_directory(
        self, stage: Stage, one: str, two: str, meet: bool
    ) -> None:
        """Devices and inodes differ from host to host; the names beneath the root do not."""
        here = await stage.worker(places=(at_root(ROOT),))
        there = await elsewhere(stage, 1, places=(at_root(ROOT),))
        runs = [await stage.run(place=at_root(ROOT), spec={"workspace": ROOT}) for _ in range(2)]
        for run, name, node in zip(runs, (one, two), ("1:1", "9:9"), strict=True):
            path = f"{ROOT}/{name}".rstrip("/")
            assert await stage.uow.write(partial(_set_workspace, pk=run.pk, path=path, node=node))
        (first,) = await stage.claim(here, 1)
        assert first.pk == runs[0].pk
        found = await stage.claim(there, 9)
        assert pks(found) == ([] if meet else [runs[1].pk])
        await stage.finish(first)
        assert pks(found or await stage.claim(there, 9)) == [runs[1].pk]

    async def test_the_same_inode_on_two_hosts_is_not_the_same_directory(self, stage: Stage) -> None:
        here, there = await stage.worker(), await elsewhere(stage, 1)
        await stage.run(spec={"workspace": "/w"}, chain=("1:1",))
        other = await stage.run(host_id=there.host_id, spec={"workspace": "/w"}, chain=("1:1",))
        await stage.claim(here, 9)
        assert pks(await stage.claim(there, 9)) == [other.pk]

    async def test_a_worker_must_bear_the_labels_that_a_run_needs(self, stage: Stage) -> None:
        plain = await stage.worker()
        strong = await stage.worker(labels={"gpu": "a100", "zone": "eu"})
        wanted = await stage.run(spec={"labels": {"worker/gpu": "a100", "team": "a"}})
        other = await stage.run(spec={"labels": {"worker/gpu": "h100"}})
        free = await stage.run(spec={"labels": {"gpu": "a100"}})
        assert pks(await stage.claim(plain, 9)) == [free.pk]
        assert pks(await stage.claim(strong, 9)) == [wanted.pk]
        (lane,) = await stage.uow.read(lambda tx: tx.leases.lanes())
        assert (dict(lane.need), lane.runs) == ({"gpu": "h100"}, 1)
        workers = await stage.uow.read(lambda tx: tx.workers.all())
        why = why_unserved(lane, workers)
        assert why is not None
        assert why.startswith("label gpu=h100")
        assert (await stage.get(other)).worker is None

    async def test_a_fallback_moves_the_run_to_another_lane(self, stage: Stage) -> None:
        worker = await stage.worker()
        run = await stage.run(spec={"backend": "unheard", "fallback": ("echo",)})
        assert await stage.claim(worker, 9) == []
        await stage.uow.write(lambda tx: tx.runs.save(_fallen(tx.runs.lock(run.pk))))
        assert pks(await stage.claim(worker, 9)) == [run.pk]

    async def test_sessions_take_turns(self, stage: Stage) -> None:
        """Whoever queues many runs in one session waits with each for those that came before it elsewhere."""
        worker, greedy = await stage.worker(), await stage.session()
        many = [await stage.run(session=greedy) for _ in range(5)]
        others = [await stage.run() for _ in range(3)]
        order: list[int] = []
        while found := await stage.claim(worker, 1):
            order += pks(found)
            await stage.finish(found[0])
        first, *rest = many
        assert order == [first.pk, *pks(others), *pks(rest)]

    async def test_newcomers_go_before_the_next_of_a_session_that_had_its_turn(self, stage: Stage) -> None:
        worker, greedy = await stage.worker(), await stage.session()
        many = [await stage.run(session=greedy) for _ in range(3)]
        (running,) = await stage.claim(worker, 1)
        newcomer = await stage.run()
        await stage.finish(running)
        assert pks(await stage.claim(worker, 1)) == [newcomer.pk]
        assert pks(await stage.claim(worker, 1)) == [many[1].pk]

    async def test_child_runs_of_one_session_do_not_keep_others_waiting(self, stage: Stage) -> None:
        """They do not wait for each other, so a plan with many steps could fill every slot for hours."""
        worker, greedy = await stage.worker(), await stage.session()
        children = [await stage.run(session=greedy, parent_id=new_run_id(0)) for _ in range(30)]
        newcomers = [await stage.run() for _ in range(2)]
        assert pks(await stage.claim(worker, 4)) == [children[0].pk, *pks(newcomers), children[1].pk]
        assert len(await stage.claim(worker, 100)) == 28, "nobody else is there: all at once"

    async def test_who_had_begun_keeps_his_turn(self, stage: Stage) -> None:
        """An orderly end of the worker may not put a run behind everything that was queued meanwhile."""
        worker = await stage.worker()
        old = await stage.run()
        (held,) = await stage.claim(worker)
        for _ in range(3):
            await stage.run()
        await stage.move(held, Input.HAND_BACK)
        assert pks(await stage.claim(worker)) == [old.pk]

    async def test_who_waited_for_a_workspace_keeps_his_turn(self, stage: Stage) -> None:
        """Put behind everybody each time, it would be overtaken by those who come for the same directory later."""
        worker = await stage.worker()
        holder, waiting = [await stage.run(chain=("1:5",)) for _ in range(2)]
        assert pks(await stage.claim(worker, 9)) == [holder.pk]
        later = [await stage.run(), await stage.run(chain=("1:5",)), await stage.run()]
        await stage.finish(holder)
        order: list[int] = []
        while found := await stage.claim(worker, 1):
            order += pks(found)
            await stage.finish(found[0])
        assert order == [waiting.pk, *pks(later)]

    async def test_runs_of_a_busy_session_say_so_from_the_beginning(self, stage: Stage) -> None:
        session = await stage.session()
        first = await stage.run(session=session)
        second = await stage.run(session=session)
        assert second.waiting_for == WaitingFor(kind="session", detail=first.id)
        await stage.move(first, Input.CANCEL)
        assert (await stage.get(second)).waiting_for is None
        child = await stage.run(session=session, parent_id=new_run_id(0))
        assert child.waiting_for is None

    async def test_lanes_tell_what_waits_and_runs_say_it(self, stage: Stage) -> None:
        runs = [await stage.run(spec={"backend": "unheard"}) for _ in range(3)]
        worker = await stage.worker()
        (lane,) = await stage.uow.read(lambda tx: tx.leases.lanes())
        assert (lane.place, lane.backend, lane.runs) == (at_host(stage.host), "unheard", 3)
        assert lane.oldest_at == runs[0].created_at
        why = why_unserved(lane, (worker,))
        assert why == f"backend unheard: offered by nobody on host {stage.host}"
        told = WaitingFor(kind="backend", detail=why)
        assert await stage.uow.write(lambda tx: tx.leases.explain(lane.pk, told, 2)) == 2
        assert await stage.uow.write(lambda tx: tx.leases.explain(lane.pk, told, 2)) == 0, "nothing is new"
        said = [(await stage.get(run)).waiting_for for run in runs]
        assert said == [told, told, None]
        (claimed, *_) = await stage.claim(worker, 9, "unheard")
        assert claimed.waiting_for is None

    async def test_time_opens_many_gates_little_by_little(self, stage: Stage) -> None:
        worker = await stage.worker()
        at = stage.clock.wall_ms() + 1000

        async def add() -> int:
            return (await stage.run(not_before=at)).pk

        wanted = sorted([await add() for _ in range(300)])
        stage.clock.jump_wall(2000)
        found: list[int] = []
        while claimed := await stage.claim(worker, 100):
            found += pks(claimed)
        assert sorted(found) == wanted


def _set_workspace(tx: Transaction, *, pk: int, path: str, node: str) -> bool:
    return tx.runs.set_workspace(pk, path, (node,))


def _fallen(run: Run) -> Run:
    return replace(run, fallback=1)
