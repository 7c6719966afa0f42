"""Runs that nobody claims say why, once, and say nothing any more when somebody comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overnight.domain.queue_limits import QueueLimits
from overnight.domain.values import WaitingFor
from overnight.engine.maintenance.explainer import Explainer
from overnight.ids import new_host_id
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage

pytestmark = pytest.mark.anyio
STALE_S = 30.0


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    clock, notifier = ManualClock(), InprocNotifier()
    store = SqliteStore(tmp_path / "overnight.db", clock, notifier)
    await store.start()
    yield Stage(uow=store, notifier=notifier, clock=clock)
    await store.close()


def explainer(stage: Stage, limits: QueueLimits | None = None) -> Explainer:
    return Explainer(stage.uow, stage.clock, stale_s=STALE_S, limits=limits or QueueLimits())


async def test_they_say_what_nobody_offers_until_somebody_does(stage: Stage) -> None:
    runs = [await stage.run() for _ in range(3)]
    watch = explainer(stage)
    assert await watch.once() == 3
    told = WaitingFor(kind="workspace", detail=f"host {stage.host}: no worker is there")
    assert [(await stage.get(run)).waiting_for for run in runs] == [told] * 3
    assert await watch.once() == 0, "nothing new is written"
    worker = await stage.worker()
    assert await watch.once() == 3
    assert [(await stage.get(run)).waiting_for for run in runs] == [None] * 3
    stage.clock.jump_wall(round(STALE_S * 1000) + 1)
    assert await watch.once() == 3, "the worker has fallen silent"
    assert len(await stage.claim(worker, 9)) == 3


async def test_a_later_one_of_another_server_takes_back_what_is_true_no_more(stage: Stage) -> None:
    run = await stage.run(spec={"backend": "unheard"})
    await stage.worker()
    await explainer(stage).once()
    waiting = (await stage.get(run)).waiting_for
    assert waiting is not None
    assert (waiting.kind, waiting.detail) == (
        "backend",
        f"backend unheard: offered by nobody on host {stage.host}",
    )
    await stage.worker(backends=("unheard",))
    assert await explainer(stage).once() == 1
    assert (await stage.get(run)).waiting_for is None


async def test_a_limit_of_the_whole_backend_is_told_too(stage: Stage) -> None:
    limits = QueueLimits(backends={"echo": 1})
    runs = [await stage.run() for _ in range(2)]
    worker = await stage.worker()
    await stage.claim(worker, 9, limits=limits)
    watch = explainer(stage, limits)
    assert await watch.once() == 1
    assert (await stage.get(runs[1])).waiting_for == WaitingFor(
        kind="backend", detail="limit: backend echo (1 at once)"
    )
    await stage.finish(runs[0])
    assert await watch.once() == 1
    assert (await stage.get(runs[1])).waiting_for is None


async def test_a_queue_that_nobody_waits_in_costs_no_writing(stage: Stage) -> None:
    await stage.worker()
    await stage.run(host_id=new_host_id(3), not_before=stage.clock.wall_ms() + 1000)
    assert await explainer(stage).once() == 0
