"""A worker on which nothing can begin takes no more runs, until somebody has looked at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.conftest import Make, fake, quiet
from tests.engine.fake_backend import FakeAgent, FakeBackend
from tests.engine.rig import Rig

from overnight.clock import SystemClock
from overnight.domain.states import State
from overnight.domain.values import Failure
from overnight.domain.worker import Action
from overnight.domain.worker import Worker as WorkerRow
from overnight.engine.conduct import Judged
from overnight.engine.supervisor import Supervisor
from overnight.engine.worker import Worker
from overnight.errors import Unavailable
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
BROKEN = Failure(code="spawn_failed", message="no agent could be started")


async def judged(rig: Make, backend: FakeBackend, *, after: int, **more: Any) -> Rig:
    """A server whose worker is judged."""
    server = await rig(backend, supervise=False, **more)
    conduct = Judged(server.store, server.clock, server.shop.worker, after=after)
    server.shop = replace(server.shop, conduct=conduct)
    server.worker = Worker(server.shop, server.source)
    server.supervisor = Supervisor(server.shop, server.worker, server.source)
    await server.supervisor.start()
    return server


async def row(server: Rig) -> WorkerRow:
    (found,) = await server.store.read(lambda tx: tx.workers.all())
    return found


async def is_quarantined(server: Rig) -> bool:
    return (await row(server)).state == "quarantined"


async def ask(server: Rig, action: Action) -> None:
    me, now = server.shop.worker.id, server.clock.wall_ms()
    await server.store.write(lambda tx: tx.workers.act(me, action, by="ada", reason=None, at=now))


async def test_after_so_many_failures_the_rest_stays_in_the_queue(rig: Make) -> None:
    backend = fake(quiet, refuses=BROKEN)
    server = await judged(rig, backend, after=2)
    for _ in range(2):
        await server.until(await server.submit(mode="oneshot"), State.FAILED)
    await eventually(lambda: server.worker.busy == 0)
    assert ((await row(server)).state, (await row(server)).reason) == (
        "quarantined",
        "2 failures in a row, the last: spawn_failed",
    )
    backend.refuses = None
    waiting = await server.submit(mode="oneshot")
    assert await server.source.claim(9) == ()
    await ask(server, "release")
    await server.until(waiting, State.COMPLETED)


async def test_what_works_in_between_ends_the_row(rig: Make) -> None:
    backend = fake(quiet)
    server = await judged(rig, backend, after=2)
    for refuses, state in ((BROKEN, State.FAILED), (None, State.COMPLETED)) * 2:
        backend.refuses = refuses
        await server.until(await server.submit(mode="oneshot"), state)
    assert (await row(server)).state == "active"


async def test_a_workspace_that_is_gone_says_nothing_of_the_worker(rig: Make) -> None:
    server = await judged(rig, fake(quiet), after=1)
    workspace = server.workspace("gone")
    await ask(server, "drain")
    run = await server.submit(mode="oneshot", workspace=str(workspace))
    workspace.rmdir()
    await ask(server, "resume")
    ended = await server.until(run, State.FAILED)
    assert ended.error is not None
    assert ended.error.code == "workspace_refused"
    assert (await row(server)).state == "active"


async def waiting(agent: FakeAgent) -> None:
    await agent.go.wait()


class Standing(SystemClock):
    """A boot clock that can be moved on, as if the process had stood still."""

    skip = 0.0

    def boot(self) -> float:
        return super().boot() + self.skip


@pytest.mark.parametrize("away", [False, True])
async def test_leases_that_run_out_while_nothing_can_be_stored_say_nothing_of_the_worker(
    rig: Make, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    async def refuse(_: Mapping[int, int]) -> frozenset[int]:
        raise Unavailable("the database is away")

    clock, backend = Standing(), fake(waiting)
    server = await judged(rig, backend, after=1, clock=clock)
    await server.submit(mode="oneshot")
    await server.agent(backend)
    if away:
        monkeypatch.setattr(server.worker._source, "renew", refuse)
        with pytest.raises(Unavailable):
            await server.worker.renew()
    clock.skip = 60.0
    await server.worker.renew()
    if away:
        assert (await row(server)).state == "active"
    else:
        await eventually(lambda: is_quarantined(server))
