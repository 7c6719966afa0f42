"""Limits and rates: how many runs may be held at once, and how many started in a time, on all workers together."""

from __future__ import annotations

import asyncio

import pytest

from overnight.domain.queue_limits import NO_LIMITS, QueueLimits, Rate
from overnight.domain.run import Run
from overnight.domain.states import Input
from overnight.domain.values import WaitingFor
from overnight.domain.worker import Worker
from overnight.ids import new_host_id
from overnight.ports.notifier import CHANGES, QUEUE
from overnight.testing.conformance.stage import Stage

TEAM = {"labels": {"team": "a"}}
ONE_TEAM = QueueLimits(labels={("team", "a"): 2})


def pks(runs: list[Run]) -> list[int]:
    """Which runs."""
    return [run.pk for run in runs]


@pytest.mark.anyio
class RoomSuite:
    """The contract of `ports.tables.LeaseTable.claim` about limits."""

    async def test_a_backend_limit_counts_what_everybody_holds(self, stage: Stage) -> None:
        limits = QueueLimits(backends={"echo": 3})
        runs = [await stage.run() for _ in range(6)]
        other = await stage.run(spec={"backend": "other"})
        one, two = await stage.worker(), await stage.worker()
        assert pks(await stage.claim(one, 2, limits=limits)) == pks(runs[:2])
        assert pks(await stage.claim(two, 9, limits=limits)) == [runs[2].pk, other.pk]
        assert await stage.claim(one, 9, limits=limits) == []
        full = await stage.uow.read(lambda tx: tx.leases.full(limits))
        assert full == {"echo": "limit: backend echo (3 at once)"}
        listener = stage.notifier.subscribe(QUEUE)
        await stage.finish(runs[0])
        assert await listener.next(5), "who makes room wakes the queue"
        listener.close()
        assert pks(await stage.claim(one, 9, limits=limits)) == [runs[3].pk]

    async def test_an_end_wakes_the_queue_for_whoever_waits_and_nobody_else(self, stage: Stage) -> None:
        worker = await stage.worker()
        limited = QueueLimits(labels={("team", "a"): 1})
        for spec, limits, wakes in (
            ({"backend": "nobody"}, NO_LIMITS, True),  # for all that is known, a limit has kept it back
            (TEAM, limited, True),
            (None, NO_LIMITS, False),
        ):
            held = await stage.run(spec=TEAM)
            waiting = [await stage.run(spec=spec)] if spec else []
            assert pks(await stage.claim(worker, 2, limits=limits)) == [held.pk]
            listener = stage.notifier.subscribe(QUEUE, CHANGES)
            await stage.finish(held)
            assert (QUEUE in {notice.topic for notice in await listener.next(5)}) is wakes
            listener.close()
            for run in waiting:
                await stage.uow.write(
                    lambda tx, run=run: tx.runs.save(  # type: ignore[misc]
                        tx.runs.lock(run.pk).moved(Input.CANCEL, stage.clock.wall_ms())
                    )
                )

    async def test_of_many_that_claim_at_once_none_goes_above_a_limit(self, stage: Stage) -> None:
        limits = QueueLimits(backends={"echo": 4}, labels={("team", "a"): 3})
        for _ in range(12):
            await stage.run(spec=TEAM)
        workers = [await stage.worker() for _ in range(6)]
        found = await asyncio.gather(*(stage.claim(worker, 3, limits=limits) for worker in workers))
        assert sum(map(len, found)) == 3

    async def test_a_label_limit_holds_up_only_those_who_bear_it(self, stage: Stage) -> None:
        runs = [await stage.run(spec=TEAM) for _ in range(5)]
        free = await stage.run(spec={"labels": {"team": "b"}})
        worker = await stage.worker()
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == [*pks(runs[:2]), free.pk]
        waiting = (await stage.get(runs[2])).waiting_for
        assert waiting == WaitingFor(kind="backend", detail="limit: label team=a (2 at once)")
        change = (await stage.get(runs[2])).change
        assert await stage.claim(worker, 9, limits=ONE_TEAM) == []
        assert (await stage.get(runs[2])).change == change
        await stage.finish(runs[0])
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == [runs[2].pk]
        assert await stage.claim(worker, 9, limits=ONE_TEAM) == []

    async def test_a_limit_that_was_raised_or_dropped_lets_those_go_that_waited_for_it(
        self, stage: Stage
    ) -> None:
        runs = [await stage.run(spec=TEAM) for _ in range(6)]
        worker = await stage.worker()
        await stage.claim(worker, 9, limits=ONE_TEAM)
        raised = QueueLimits(labels={("team", "a"): 4})
        assert pks(await stage.claim(worker, 9, limits=raised)) == pks(runs[2:4])
        assert pks(await stage.claim(worker, 9)) == pks(runs[4:])

    async def test_the_most_urgent_of_those_that_wait_for_a_limit_goes_first(self, stage: Stage) -> None:
        worker = await stage.worker()
        first = [await stage.run(spec=TEAM) for _ in range(2)]
        low, last = [await stage.run(spec={**TEAM, "priority": -1}) for _ in range(2)]
        await stage.claim(worker, 9, limits=ONE_TEAM)
        urgent = await stage.run(spec={**TEAM, "priority": 7})
        await stage.finish(first[0])
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == [urgent.pk]
        await stage.finish(urgent)
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == [low.pk]
        await stage.finish(low)
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == [last.pk]

    async def test_a_worker_with_many_labels_is_given_everything_once(self, stage: Stage) -> None:
        """Its labels are too many to be named in all combinations, and a lane has runs of both kinds."""
        worker = await stage.worker(labels={f"label{n}": "x" for n in range(9)})
        runs = [await stage.run(spec=TEAM) for _ in range(3)]
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == pks(runs[:2])
        free, choosy = await stage.run(), await stage.run(spec={"labels": {"worker/label7": "x"}})
        await stage.run(spec={"labels": {"worker/label7": "y"}})
        await stage.finish(runs[0])
        found = pks(await stage.claim(worker, 9, limits=ONE_TEAM))
        assert found == [runs[2].pk, free.pk, choosy.pk]

    async def test_one_who_waits_for_a_limit_elsewhere_keeps_nobody_from_it(self, stage: Stage) -> None:
        """A run on a host without a worker may not stand in front of one that could go."""
        far = await stage.worker(host_id=new_host_id(1))
        mine = await stage.worker()
        held = [await stage.run(spec=TEAM) for _ in range(2)]
        await stage.claim(mine, 9, limits=ONE_TEAM)
        stuck = await stage.run(host_id=far.host_id, spec={**TEAM, "priority": 9})
        assert await stage.claim(far, 9, limits=ONE_TEAM) == []
        waiting = await stage.run(spec=TEAM)
        await stage.finish(held[0])
        assert pks(await stage.claim(mine, 9, limits=ONE_TEAM)) == [waiting.pk]
        assert (await stage.get(stuck)).waiting_for is not None

    async def test_whoever_waits_for_a_limit_can_be_cancelled_or_paused(self, stage: Stage) -> None:
        worker = await stage.worker()
        runs = [await stage.run(spec=TEAM) for _ in range(4)]
        await stage.claim(worker, 9, limits=ONE_TEAM)
        await stage.move(runs[2], Input.CANCEL)
        await stage.move(runs[3], Input.PAUSE)
        await stage.finish(runs[0])
        assert await stage.claim(worker, 9, limits=ONE_TEAM) == []
        await stage.move(runs[3], Input.RESUME)
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == [runs[3].pk]

    async def test_a_workspace_is_not_kept_by_one_who_waits_for_a_limit(self, stage: Stage) -> None:
        worker, chain = await stage.worker(), ("1:10", "1:1")
        holder = await stage.run(chain=chain)
        await stage.claim(worker)
        limited = await stage.run(chain=chain, spec=TEAM)
        behind = await stage.run(chain=chain)
        assert await stage.claim(worker, 9) == []
        for _ in range(2):
            await stage.run(spec=TEAM)
        await stage.claim(worker, 9, limits=ONE_TEAM)
        await stage.finish(holder)
        assert pks(await stage.claim(worker, 9, limits=ONE_TEAM)) == [behind.pk]
        assert (await stage.get(limited)).worker is None


@pytest.mark.anyio
class RateSuite:
    """Rates go by the database's clock; a stage may stand on one that cannot be moved, so these ask little of time."""

    async def test_so_many_starts_and_no_more(self, stage: Stage) -> None:
        limits = QueueLimits(rates={"echo": Rate.parse("3/day")})
        runs = [await stage.run() for _ in range(5)]
        worker: Worker = await stage.worker()
        assert pks(await stage.claim(worker, 2, limits=limits)) == pks(runs[:2])
        for run in runs[:2]:
            await stage.finish(run)
        assert pks(await stage.claim(worker, 9, limits=limits)) == [runs[2].pk]
        assert await stage.claim(worker, 9, limits=limits) == []
        full = await stage.uow.read(lambda tx: tx.leases.full(limits))
        assert full == {"echo": "rate: backend echo (3/day)"}
        assert pks(await stage.claim(worker, 9)) == pks(runs[3:]), "who knows no rate keeps none"
