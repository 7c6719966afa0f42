"""A worker elsewhere on which nothing can begin takes no more runs; one that was drained waits in peace."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.engine.conftest import fake, quiet
from tests.engine.fake_backend import FakeBackend
from tests.engine.rig import FAST
from tests.engine.test_conduct import BROKEN
from tests.remote.conftest import Make
from tests.remote.rig import Line, RemoteRig

from overnight.client.worker.conduct import MOST, Reported
from overnight.client.worker.desk import RestLeaseDesk
from overnight.domain.placement import at_root
from overnight.domain.states import State
from overnight.domain.worker import Action
from overnight.domain.worker import Worker as WorkerRow
from overnight.errors import Unreachable
from overnight.ids import new_worker_id
from overnight.ports.remote import NOTHING_NEW, Report
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
CALM = replace(FAST, lease_s=600.0)
"""No lease runs out on a slow machine, which would be one failure more."""


async def row(server: RemoteRig) -> WorkerRow:
    found = await server.store.read(lambda tx: tx.workers.all())
    return next(one for one in found if one.id == server.shop.worker.id)


async def ask(server: RemoteRig, action: Action) -> None:
    me, now = server.shop.worker.id, server.clock.wall_ms()
    await server.store.write(lambda tx: tx.workers.act(me, action, by="ada", reason=None, at=now))


async def fails(server: RemoteRig, backend: FakeBackend, times: int) -> None:
    backend.refuses = BROKEN
    for _ in range(times):
        await server.until(await server.submit(mode="oneshot"), State.FAILED, within=60)
    backend.refuses = None


async def is_quarantined(server: RemoteRig) -> bool:
    return (await row(server)).state == "quarantined"


async def test_after_so_many_failures_the_rest_stays_in_the_queue(rig: Make) -> None:
    backend = fake(quiet)
    server = await rig(backend, quarantine_after=2, timing=CALM)
    await fails(server, backend, 2)
    await eventually(lambda: is_quarantined(server), within=60)
    assert (await row(server)).reason == "2 failures in a row, the last: spawn_failed"
    waiting = await server.submit(mode="oneshot")
    assert await server.source.claim(9) == ()
    assert (await server.run(waiting)).state is State.QUEUED
    again = started_anew(server)
    desk = RestLeaseDesk(server.line.post)
    assert (await desk.grant(again, 9, "r1", ())).state == "quarantined", "a restart forgets nothing"
    await ask(server, "release")
    await server.until(waiting, State.COMPLETED, within=60)


async def test_what_works_in_between_ends_the_row(rig: Make) -> None:
    backend = fake(quiet)
    server = await rig(backend, quarantine_after=2, timing=CALM)
    for _ in range(2):
        await fails(server, backend, 1)
        await server.until(await server.submit(mode="oneshot"), State.COMPLETED, within=60)
    await server.until(await server.submit(mode="oneshot"), State.COMPLETED, within=60)
    assert (await row(server)).state == "active"


@dataclass
class Forgetful(Line):
    """Every first answer to an offer is lost, once the server has heard it."""

    heard: set[str] = field(default_factory=set)

    async def deliver(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = await super().deliver(path, document)
        if path == "" and document["request_id"] not in self.heard:
            self.heard.add(document["request_id"])
            raise Unreachable("the answer is lost")
        return answer


async def test_a_failure_that_is_told_twice_counts_once(rig: Make) -> None:
    backend = fake(quiet)
    server = await rig(backend, quarantine_after=2, timing=CALM, line_of=Forgetful)
    await fails(server, backend, 1)
    await eventually(lambda: len(told(server)) == 2, within=60)  # a turn that begins before would end the row
    await server.until(await server.submit(mode="oneshot"), State.COMPLETED, within=60)
    assert (await row(server)).state == "active"
    assert told(server) == [["spawn_failed"]] * 2


def told(server: RemoteRig) -> list[list[str]]:
    """The failures in offers that had any."""
    return [body["faults"] for path, body in server.line.sent if path == "" and body["faults"]]


async def test_a_drained_worker_waits_for_news_like_any_other(rig: Make) -> None:
    """Answered at once it would ask again at once, for as long as it is drained."""
    server = await rig(fake(quiet), supervise=False)
    server.watching.cancel()
    desk, me = RestLeaseDesk(server.line.post), server.shop.worker
    await desk.grant(me, 0, "r1", ())
    worker = next(body["worker"] for path, body in server.line.sent if path == "")
    await ask(server, "drain")
    run = await server.submit(mode="oneshot")
    watching = asyncio.create_task(desk.watch(me, {}, {}, 30, work=True))
    body = {"request_id": "r2", "worker": worker, "free": 1, "wait_s": 30}
    offering = asyncio.create_task(server.line.ask("", body))
    await eventually(lambda: len(server.leases._waiting) == 2, within=60)
    await ask(server, "resume")
    assert (await watching).work
    assert [one["run_id"] for one in (await offering)["runs"]] == [run.id]


async def test_a_shared_root_is_offered_from_elsewhere_too(rig: Make) -> None:
    server = await rig(fake(quiet), supervise=False)
    desk = RestLeaseDesk(server.line.post)
    me = WorkerRow(
        pk=0, id=new_worker_id(1), host_id=server.shop.worker.host_id, host_name="far", pid=1, version="1",
        slots=1, backends=("fake",), places=(at_root("/srv/shared"),), started_at=1, seen_at=1,
    )  # fmt: skip
    await desk.grant(me, 0, "r1", ())
    found = await server.store.read(lambda tx: tx.workers.all())
    assert next(one for one in found if one.id == me.id).places == me.places


async def test_what_is_told_is_bounded_and_told_once() -> None:
    conduct = Reported()
    for n in range(MOST + 5):
        await conduct.stumbled(f"{n} " + "x" * 500)
    report = conduct.take()
    assert (len(report.faults), max(map(len, report.faults)), report.well) == (MOST, 200, False)
    assert conduct.take() == NOTHING_NEW
    await conduct.stumbled("one")
    await conduct.went_well()
    await conduct.went_well()
    await conduct.stumbled("two")
    assert conduct.take() == Report(well=True, faults=("two",))


def started_anew(server: RemoteRig) -> WorkerRow:
    """The same worker in another process."""
    return replace(server.shop.worker, id=new_worker_id(server.clock.wall_ms() + 1), pid=2)
