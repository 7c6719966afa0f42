"""News of an earlier hold that arrives when the same worker holds the run again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.engine.conftest import fake, quiet
from tests.engine.rig import FAST
from tests.remote.conftest import Make
from tests.remote.rig import Line

from overnight.client.worker import unit_of_work
from overnight.client.worker.desk import RestLeaseDesk
from overnight.client.worker.watch import Watch
from overnight.domain.states import State
from overnight.testing.signals import eventually

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


@dataclass
class LateAnswer(Line):
    """The answer to the batch that ends the run comes after the answer to the next renewal."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    renewed: asyncio.Event = field(default_factory=asyncio.Event)

    async def deliver(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = await super().deliver(path, document)
        if path.endswith("/ack") and answer["facts"] is None:
            self.ended.set()
            await self.renewed.wait()
            for _ in range(100):  # so that whoever was renewing would be done with it
                await asyncio.sleep(0)
        if path == "/renew" and answer["lost"]:
            self.renewed.set()
        return answer


async def test_a_hold_that_has_ended_in_order_is_not_lost(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is to blame for it, and whoever carried the run out comes to the end of what there is to do."""
    monkeypatch.setattr(unit_of_work, "ANSWER_S", 60.0)
    seldom = replace(FAST, lease_s=3600, renew_s=3600)  # nobody renews but the test
    server = await rig(fake(quiet), line_of=LateAnswer, timing=seldom)
    assert isinstance(server.line, LateAnswer)
    run = await server.submit(mode="oneshot")
    await server.line.ended.wait()
    hold = server.worker._holds[run.pk]
    await server.worker.renew()
    await eventually(lambda: server.worker.busy == 0)
    assert (hold.over, hold._gone.is_set()) == (True, False)
    assert server.shop.conduct.take().faults == ()  # type: ignore[attr-defined]
    assert not [body for path, body in server.line.sent if path == "" and body["faults"]]
