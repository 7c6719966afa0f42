"""Units of work: all or nothing, alone in their failure, released after the commit."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from overnight.domain.event import Draft
from overnight.domain.run import Run
from overnight.domain.states import Input, State
from overnight.errors import Conflict, NotFound
from overnight.ports.notifier import CHANGES, QUEUE, stream_topic
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

SOON = 0.02


@pytest.mark.anyio
class UnitSuite:
    """The contract of `ports.unit_of_work.UnitOfWork`."""

    async def test_a_unit_that_raises_leaves_nothing_behind(self, stage: Stage) -> None:
        def fails(tx: Transaction) -> None:
            stage.add_run(tx)
            tx.installation.put("a", "1")
            raise Conflict("no")

        with pytest.raises(Conflict, match="no"):
            await stage.uow.write(fails)
        assert await stage.uow.read(lambda tx: tx.installation.get("a")) is None
        assert (await stage.uow.read(lambda tx: tx.runs.page(RunFilter(), limit=9))).runs == ()

    async def test_a_failing_unit_spares_those_that_share_its_commit(self, stage: Stage) -> None:
        gate = threading.Event()

        def first(_: Transaction) -> int:
            gate.wait(60)
            return 0

        def put(n: int, tx: Transaction) -> int:
            tx.installation.put(f"k{n}", str(n))
            if n % 3 == 0:
                raise Conflict(str(n))
            return n

        waiting = [asyncio.ensure_future(stage.uow.write(first))]
        waiting += [asyncio.ensure_future(stage.uow.write(partial(put, n))) for n in range(1, 31)]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for n, result in enumerate(results[1:], 1):
            stored = await stage.uow.read(lambda tx: tx.installation.get(f"k{n}"))
            if n % 3 == 0:
                assert isinstance(result, Conflict)
                assert stored is None
            else:
                assert result == n
                assert stored == str(n)

    async def test_a_unit_knows_what_it_has_made_itself(self, stage: Stage) -> None:
        def unit(tx: Transaction) -> None:
            session = stage.add_session(tx)
            first, second = (stage.add_run(tx, session=session) for _ in range(2))
            assert first.waiting_for is None
            assert second.waiting_for is not None
            assert second.waiting_for.detail == first.id
            for n in (2, 3):
                (event,) = tx.events.append(second.pk, [Draft(type="note", data={})], now)
                assert event.seq == n
            assert tx.runs.lock(second.pk).last_seq == 3
            assert tx.runs.last_change() == tx.runs.lock(second.pk).change

        now = stage.clock.wall_ms()
        await stage.uow.write(unit)

    async def test_numbers_are_given_out_once_whoever_fails(self, stage: Stage) -> None:
        """Of units that share a commit, those that fail may leave gaps; the first of a commit fails too."""
        gate = threading.Event()

        def unit(n: int, tx: Transaction) -> int:
            gate.wait(60)
            run = stage.add_run(tx)
            if n % 3 == 0:
                raise Conflict(str(n))
            return run.pk

        start = (await stage.run()).pk
        waiting = [asyncio.ensure_future(stage.uow.write(partial(unit, n))) for n in range(12)]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        kept = [found for found in results if isinstance(found, int)]
        assert [isinstance(found, Conflict) for found in results] == [n % 3 == 0 for n in range(12)]
        assert kept == sorted(set(kept))
        assert kept[0] > start
        changed = await stage.uow.read(lambda tx: tx.runs.changed_after(start, None, 99))
        assert [run.pk for run in changed] == kept
        assert (await stage.run()).pk > kept[-1]

    async def test_what_a_unit_has_seen_counts_for_no_other(self, stage: Stage) -> None:
        """Units that share a commit work on one run; what those have done that fail is seen by nobody."""
        gate = threading.Event()
        run = await stage.run()

        def unit(n: int, tx: Transaction) -> Run:
            gate.wait(60)
            locked = tx.runs.lock(run.pk)
            for _ in range(2):
                tx.events.append(run.pk, [Draft(type="note", data={"n": n})], stage.clock.wall_ms())
            tx.events.append(tx.sessions.lock(run.session_pk).pk, [Draft(type="note", data={"n": n})], 1)
            saved = tx.runs.save(locked)
            assert saved == tx.runs.lock(run.pk)
            if n % 3 == 0:
                raise Conflict(str(n))
            return saved

        waiting = [asyncio.ensure_future(stage.uow.write(partial(unit, n))) for n in range(12)]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(found) for found in results] == [Run if n % 3 else Conflict for n in range(12)]
        before = run.last_seq
        kept = [found.last_seq for found in results if isinstance(found, Run)]
        assert kept == [before + 2 * n for n in range(1, 9)]
        for pk, first, many in ((run.pk, before, 16), (run.session_pk, 0, 8)):
            logged = await stage.uow.read(lambda tx, pk=pk: tx.events.after(pk, 0, 99))  # type: ignore[misc]
            assert [event.seq for event in logged] == list(range(1, len(logged) + 1))
            assert len(logged) >= first + many

    async def test_a_saved_run_is_what_is_read_then(self, stage: Stage) -> None:
        """Claimed, noted and ended within one unit: nothing of it need be read again to be known."""
        worker, now = await stage.worker(), stage.clock.wall_ms()
        first, second = await stage.run(), await stage.run()

        def unit(tx: Transaction) -> None:
            for claimed in tx.leases.claim(stage.offer(worker, 2), now):
                tx.events.append(claimed.pk, [Draft(type="run.started", data={})], now)
                begun = tx.runs.save(claimed.moved(Input.CLAIM, now, started_at=now))
                assert begun == tx.runs.lock(begun.pk)
                ended = tx.runs.save(begun.moved(Input.COMPLETE, now))
                assert ended == tx.runs.lock(begun.pk)
                assert ended.token == begun.token + 1
                assert tx.runs.save(ended).token == ended.token
            assert tx.leases.held() == ()

        await stage.uow.write(unit)
        page = await stage.uow.read(lambda tx: tx.runs.page(RunFilter(), limit=9))
        states = {run.pk: run.state for run in page.runs}
        assert states == dict.fromkeys((first.pk, second.pk), State.COMPLETED)

    async def test_a_gate_that_opens_puts_a_run_behind_what_its_unit_has_added(self, stage: Stage) -> None:
        worker, now = await stage.worker(), stage.clock.wall_ms()
        later = await stage.run(not_before=now + 10)
        offer = stage.offer(worker)

        def unit(tx: Transaction) -> tuple[list[int], list[int]]:
            added = [stage.add_run(tx).pk for _ in range(2)]
            return added, [run.pk for run in tx.leases.claim(offer, now + 20)]

        added, claimed = await stage.uow.write(unit)
        assert claimed == added[:1]
        assert later.pk not in claimed

    async def test_a_result_is_seen_by_every_later_read(self, stage: Stage) -> None:
        for n in range(20):
            await stage.uow.write(lambda tx: tx.installation.put("n", str(n)))
            assert await stage.uow.read(lambda tx: tx.installation.get("n")) == str(n)

    async def test_a_read_stays_on_its_snapshot(self, stage: Stage) -> None:
        begun, go_on = threading.Event(), threading.Event()
        await stage.uow.write(lambda tx: tx.installation.put("n", "old"))

        def twice(tx: Transaction) -> tuple[str | None, str | None]:
            before = tx.installation.get("n")
            begun.set()
            go_on.wait(60)
            return before, tx.installation.get("n")

        reading = asyncio.ensure_future(stage.uow.read(twice))
        await asyncio.to_thread(begun.wait, 60)
        await stage.uow.write(lambda tx: tx.installation.put("n", "new"))
        go_on.set()
        assert await reading == ("old", "old")

    async def test_a_read_cannot_write(self, stage: Stage) -> None:
        with pytest.raises(Exception, match=r"(?i)read.?only"):
            await stage.uow.read(lambda tx: tx.installation.put("n", "1"))
        assert await stage.uow.read(lambda tx: tx.installation.get("n")) is None

    async def test_notices_come_after_the_commit_and_carry_the_stored_bytes(self, stage: Stage) -> None:
        run = await stage.run()
        listener = stage.notifier.subscribe(stream_topic(run.id))
        recorded = await stage.uow.write(
            lambda tx: tx.events.append(run.pk, [Draft(type="turn.started"), Draft(type="turn.completed")], 5)
        )
        notices = await listener.next(30)
        assert [event for notice in notices for event in notice.events] == list(recorded)
        assert await stage.uow.read(lambda tx: tx.events.after(run.pk, 1, 9)) == recorded
        listener.close()

    async def test_a_unit_that_fails_gives_no_notice(self, stage: Stage) -> None:
        run = await stage.run()
        listener = stage.notifier.subscribe(stream_topic(run.id), QUEUE, CHANGES, "mine")

        def fails(tx: Transaction) -> None:
            tx.notify("mine")
            tx.events.append(run.pk, [Draft(type="turn.started")], 5)
            stage.add_run(tx)
            raise NotFound("no")

        with pytest.raises(NotFound):
            await stage.uow.write(fails)
        assert await listener.next(SOON) == ()
        await stage.uow.write(lambda tx: tx.notify("mine"))
        assert [notice.topic for notice in await listener.next(30)] == ["mine"]
        listener.close()

    async def test_a_caller_that_leaves_disturbs_nobody(self, stage: Stage) -> None:
        gate = threading.Event()
        blocking = asyncio.ensure_future(stage.uow.write(lambda _: gate.wait(60)))
        leaving = asyncio.ensure_future(stage.uow.write(lambda tx: tx.installation.put("left", "1")))
        staying = asyncio.ensure_future(stage.uow.write(lambda tx: tx.installation.put("stayed", "1")))
        await asyncio.sleep(0)
        leaving.cancel()
        gate.set()
        await asyncio.gather(blocking, staying)
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await stage.uow.read(lambda tx: tx.installation.get("stayed")) == "1"

    async def test_urgent_units_go_first(self, stage: Stage) -> None:
        gate, order = threading.Event(), list[str]()

        def passes(name: str, _: Transaction) -> None:
            order.append(name)

        first = asyncio.ensure_future(stage.uow.write(lambda _: gate.wait(60)))
        await asyncio.sleep(0)
        others = [
            asyncio.ensure_future(stage.uow.write(partial(passes, name), urgent=name == "u"))
            for name in ("a", "b", "u")
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *others)
        assert order.index("u") < order.index("b")
