"""News of an earlier hold that arrives when the same worker holds the run again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.conftest import fake
from tests.remote.conftest import Make

from overnight.client.worker.desk import RestLeaseDesk
from overnight.client.worker.watch import Watch
from overnight.domain.states import State

pytestmark = pytest.mark.anyio


async def patient(agent: Any) -> None:
    await agent.go.wait()
    agent.say("after")


async def test_the_end_of_a_hold_does_not_end_the_next_one(rig: Make) -> None:
    backend = fake(patient)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    found = server.uow.run_of(run.pk)
    assert found is not None
    server.uow.lost(run.pk, found[1] - 1, "said of the hold before")
    assert server.uow.run_of(run.pk) == found
    assert await server.source.renew({run.pk: found[1] - 1}) == {run.pk}
    assert server.uow.run_of(run.pk) == found, (
        "who asks about an old token hears that it is lost, and no more"
    )
    agent.go.set()
    assert (await server.until(run, State.COMPLETED)).attempt == 1


async def test_a_watch_that_was_answered_late_ends_only_what_it_asked_about(rig: Make) -> None:
    """The run was let go and taken again while the answer about the first hold was on its way."""
    backend = fake(patient)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    found = server.uow.run_of(run.pk)
    assert found is not None
    desk, me = RestLeaseDesk(server.line.post), server.shop.worker
    watch = Watch(desk, server.uow, server.clock, server.near, me, hungry=lambda: False)
    earlier = {run.id: found[1] - 1}
    news = await desk.watch(me, earlier, {}, 0, work=False)
    assert news.lost == (run.id,)
    await watch._tell(news, earlier)
    assert server.uow.run_of(run.pk) == found
    await watch._tell(news, {run.id: found[1]})
    assert server.uow.run_of(run.pk) is None
    agent.go.set()
