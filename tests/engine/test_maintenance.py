"""The duties beside the runs, each done once."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent, FakeBackend
from tests.engine.rig import Rig

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.worker import Worker as WorkerRow
from overnight.engine.hosts import Host, Rouse, leave_behind, left_behind, remember
from overnight.engine.maintenance.disk import DiskWatch
from overnight.engine.maintenance.heartbeat import Heartbeat
from overnight.engine.maintenance.leftovers import Leftovers
from overnight.engine.maintenance.pruner import DAY_MS, Pruner
from overnight.engine.maintenance.rescuer import Rescuer
from overnight.engine.maintenance.silent_workers import SilentWorkers
from overnight.engine.policy import Storage
from overnight.engine.supervisor import Duty, repeat
from overnight.errors import NotFound
from overnight.ids import HostId, new_worker_id
from overnight.keeper_protocol import boot_id
from overnight.ports.unit_of_work import Transaction, Unit
from overnight.testing.clocks import ManualClock
from overnight.testing.signals import Signals, eventually

pytestmark = pytest.mark.anyio
T = TypeVar("T")


class Later:
    """The machine's clock, some days on."""

    def __init__(self, server: Rig, days: float) -> None:
        self._clock = server.clock
        self._ahead = round(days * DAY_MS)

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + self._ahead

    def boot(self) -> float:
        return self._clock.boot()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


async def gone(server: Rig, run: Run) -> bool:
    try:
        await server.run(run)
    except NotFound:
        return True
    return False


async def test_final_runs_go_after_their_time_with_their_folders(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        if agent.start.run_id == old_and_running:
            await agent.forever()

    old_and_running = ""
    server = await rig(fake(script))
    old = await server.submit(mode="oneshot", workspace=None)
    await server.until(old, State.COMPLETED)
    held = await server.submit(mode="oneshot", workspace=None)
    old_and_running = held.id
    await server.until(held, State.RUNNING)
    folder, homes = server.shop.folders.run(old.id), server.shop.folders.homes(old.session_id)
    assert folder.exists()
    assert homes.exists()
    storage = Storage(data_dir=server.root / "data", retention_days=30)
    assert await Pruner(server.store, Later(server, 29), storage).once() == 0
    assert await Pruner(server.store, Later(server, 31), storage).once() == 1
    assert await gone(server, old)
    assert not folder.exists()
    assert not homes.exists()
    assert not await gone(server, held)
    await server.control(held, "cancel")
    await server.until(held, State.CANCELLED)


async def test_the_oldest_go_first_when_the_store_grows_too_big(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        for n in range(100):
            agent.say(f"{n} " + "x" * 1000)

    server = await rig(fake(script))
    runs = []
    for _ in range(4):
        runs.append(await server.submit(mode="oneshot", workspace=None))
        await server.until(runs[-1], State.COMPLETED)
    size = await server.store.read(lambda tx: tx.installation.size_bytes())
    storage = Storage(data_dir=server.root / "data", max_bytes=size)
    removed = await Pruner(server.store, server.clock, storage).once()
    assert 1 <= removed < 4
    left = [run for run in runs if not await gone(server, run)]
    assert left == runs[removed:]
    assert await server.store.read(lambda tx: tx.installation.size_bytes()) < 0.8 * size
    roomy = replace(storage, max_bytes=size * 10)
    assert await Pruner(server.store, server.clock, roomy).once() == 0


class Behind:
    """A store whose reader is overtaken: whatever it has found, another server has removed since."""

    def __init__(self, server: Rig, other: Pruner) -> None:
        self._store = server.store
        self._other: Pruner | None = other

    async def read(self, query: Unit[T]) -> T:
        found = await self._store.read(query)
        other, self._other = self._other, None
        if other is not None:
            assert await other.once() == 2
        return found

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        return await self._store.write(unit, urgent=urgent)


async def test_of_two_servers_that_remove_the_same_runs_none_fails(rig: Make) -> None:
    server = await rig(fake())
    for _ in range(2):
        await server.until(await server.submit(mode="oneshot", workspace=None), State.COMPLETED)
    storage, later = Storage(data_dir=server.root / "data", retention_days=1), Later(server, 2)
    other = Pruner(server.store, later, storage)
    assert await Pruner(Behind(server, other), later, storage).once() == 0


async def test_workers_that_were_gone_long_ago_are_forgotten(rig: Make) -> None:
    server = await rig(fake())
    row = await server.store.write(lambda tx: tx.workers.add(another_worker(server, 1)))
    now = server.clock.wall_ms()
    await server.store.write(lambda tx: tx.workers.set_state(row.id, "gone", now))
    storage = Storage(data_dir=server.root / "data", retention_days=99)
    for days, left in ((29, 2), (31, 1)):
        await Pruner(server.store, Later(server, days), storage).once()
        assert len(await server.store.read(lambda tx: tx.workers.all())) == left


async def test_the_heartbeat_is_seen(rig: Make) -> None:
    server = await rig(fake())
    before = server.shop.worker.seen_at
    await Heartbeat(server.shop).once()
    row = next(
        w for w in await server.store.read(lambda tx: tx.workers.all()) if w.id == server.shop.worker.id
    )
    assert (row.state, row.seen_at >= before) == ("active", True)


async def test_an_earlier_worker_of_the_host_is_gone(rig: Make) -> None:
    server = await rig(fake())
    await server.crash()
    server = await rig(fake())
    states = [worker.state for worker in await server.store.read(lambda tx: tx.workers.all())]
    assert sorted(states) == ["active", "gone"]


async def test_the_disk_is_watched(rig: Make) -> None:
    server = await rig(fake())
    free = [1000, 300, 90, 1000]
    storage = Storage(data_dir=server.root, reserve_bytes=200)
    watch = DiskWatch(lambda: free.pop(0), storage)
    assert [await watch.once() for _ in range(4)] == ["ok", "near", "full", "ok"]


@pytest.mark.parametrize("asked", [None, "cancel"])
async def test_a_run_of_a_host_that_is_gone_is_given_back(rig: Make, asked: str | None) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.say("working")
        if agent.start.attempt == 1:
            await agent.forever()

    server, run = await lost_to_another(rig, fake(script))
    if asked:
        await server.control(run, "cancel")
    await server.store.write(lambda tx: tx.runs.save(replace(tx.runs.lock(run.pk), place="any")))
    told = Host(id=run.host_id, name="there", data_dir=str(server.root / "data"), boot_id=boot_id())
    await server.store.write(lambda tx: remember(tx, told))
    (server.root / "data" / "host.json").write_text(f'{{"host_id": "{run.host_id}"}}')
    lives = [True, False]
    rescuer, clock = on_another_host(server, rouse=lambda _: lives.pop(0))
    assert await rescuer.once() == 0
    await clock.advance(server.timing.lease_s)
    assert [await rescuer.once(), await rescuer.once()] == [0, 1]
    if asked:
        ended = await server.until(run, State.CANCELLED)
        assert ended.cancellation is not None
        assert (ended.cancellation.reason, ended.cancellation.survivors) == ("manual", None)
        return
    ended = await server.until(run, State.COMPLETED)
    assert (ended.attempt, ended.turn) == (2, 1)
    types = await server.types(run)
    assert types.index("turn.abandoned") < types.index("run.requeued") < types.index("run.resumed")


async def test_a_run_that_only_its_host_can_carry_out_waits_for_it_and_says_so(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        await agent.forever()

    server, run = await lost_to_another(rig, fake(script))
    rescuer, clock = on_another_host(server)
    await rescuer.once()
    await clock.advance(server.timing.lease_s)
    assert [await rescuer.once(), await rescuer.once()] == [1, 0]
    waiting = await server.run(run)
    assert (waiting.state, waiting.token) == (State.RUNNING, run.token)
    assert waiting.waiting_for is not None
    assert (waiting.waiting_for.kind, str(run.host_id) in waiting.waiting_for.detail) == ("workspace", True)
    assert await server.worker.adopt(waiting, "worker_gone")
    await eventually(lambda: recovered(server, run))
    assert (await server.run(run)).waiting_for is None
    await server.control(waiting, "cancel")
    await server.until(run, State.CANCELLED)


async def test_folders_of_removed_runs_go_from_the_host_that_has_them(rig: Make) -> None:
    server = await rig(fake())
    here, there = [await server.until(await server.submit(mode="oneshot"), State.COMPLETED) for _ in range(2)]
    away = HostId("hst_00000000000000000000000001")
    await server.store.write(lambda tx: tx.runs.save(replace(tx.runs.lock(here.pk), host_id=away)))
    folder = server.shop.folders.run(there.id)
    await server.store.write(lambda tx: leave_behind(tx, there, away, [f"runs/{there.id}", "../x"]))
    storage = Storage(data_dir=server.shop.folders.data_dir, retention_days=0)
    leftovers = Leftovers(server.shop)
    assert folder.is_dir()
    assert await leftovers.once() == 1
    assert not folder.exists()
    assert await leftovers.once() == 0
    assert await Pruner(server.store, Later(server, 1), storage, there.host_id).once() == 2
    left = await server.store.read(lambda tx: left_behind(tx, away, 9))
    session = here.session_id
    assert set(left) == {f"runs/{here.id}", f"homes/{session}", f"runs/{session}"}


async def test_a_heartbeat_that_has_not_moved_means_gone_unless_a_lease_is_renewed(rig: Make) -> None:
    server = await rig(fake())
    clock = ManualClock()
    silent = SilentWorkers(replace(server.shop, clock=clock), stale_s=30)
    names = ("silent", "beating", "holding")
    rows = [another_worker(server, number) for number in range(3)]
    found = await server.store.write(lambda tx: [tx.workers.add(row) for row in rows])
    others = dict(zip(names, found, strict=True))
    await silent.once()
    await clock.advance(31)
    beating = others["beating"].pk
    await server.store.write(lambda tx: tx.workers.beat(beating, 7))
    run = await server.submit(not_before="2100-01-01T00:00:00Z")
    await server.store.write(lambda tx: hold_for(tx, run, others["holding"].pk))
    assert await silent.once() == 1
    states = {worker.pk: worker.state for worker in await server.store.read(lambda tx: tx.workers.all())}
    assert [states.get(others[name].pk, "gone") for name in names] == ["gone", "active", "active"]


async def test_whoever_was_taken_for_gone_is_back_with_its_next_heartbeat(rig: Make) -> None:
    server = await rig(fake())
    me = server.shop.worker
    now = server.shop.clock.wall_ms()
    await server.store.write(lambda tx: tx.workers.set_state(me.id, "gone", now))
    await Heartbeat(server.shop).once()
    [row] = await server.store.read(lambda tx: [worker for worker in tx.workers.all() if worker.pk == me.pk])
    assert row.state == "active"


async def lost_to_another(rig: Make, backend: FakeBackend) -> tuple[Rig, Run]:
    """A run at work whose hold has gone to a worker that nobody hears of, by a lease that is over; its agent lives."""
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    await server.until(run, State.RUNNING)
    agent = await server.agent(backend)
    taken = await server.store.write(lambda tx: tx.leases.take(run.pk, 999, 1, 0.001))
    agent.token = taken.token
    await server.worker.renew()
    await eventually(lambda: not server.worker.holds(run.pk))
    return server, taken


async def recovered(server: Rig, run: Run) -> bool:
    return "run.recovered" in await server.types(run)


def on_another_host(server: Rig, rouse: Rouse = lambda _: False) -> tuple[Rescuer, ManualClock]:
    """A rescuer elsewhere, and its clock."""
    elsewhere = replace(server.shop.worker, host_id=HostId("hst_00000000000000000000000001"))
    clock = ManualClock()
    shop = replace(server.shop, worker=elsewhere, clock=clock)
    return Rescuer(shop, server.worker, rouse=rouse), clock


def another_worker(server: Rig, number: int) -> WorkerRow:
    return replace(server.shop.worker, id=new_worker_id(number), host_id=HostId(f"hst_{number:026d}"))


def hold_for(tx: Transaction, run: Run, worker_pk: int) -> None:
    tx.runs.save(replace(tx.runs.lock(run.pk), state=State.RUNNING, not_before=None))
    taken = tx.leases.take(run.pk, worker_pk, run.token)
    tx.leases.renew(worker_pk, {run.pk: taken.token})


async def test_a_duty_that_fails_is_done_again() -> None:
    signals, clock = Signals(), ManualClock()

    async def once() -> None:
        signals.mark("done")
        raise NotFound if signals.count("done") == 1 else RuntimeError("broken")

    import asyncio

    task = asyncio.ensure_future(repeat(Duty(name="duty", every_s=5, once=once), clock))
    for times in (1, 2, 3):
        await signals.reached("done", times=times)
        await clock.asleep()
        await clock.advance(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
