"""An agent elsewhere that asks more at once than fits into one unit, and a worker that reports without end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import pytest
from tests.engine.asking import ASKING, command
from tests.engine.conftest import fake
from tests.engine.fake_backend import FakeAgent
from tests.remote.conftest import Make
from tests.remote.test_hostile_workers import leased

from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.errors import Conflict

pytestmark = pytest.mark.anyio
MANY: Final = 60


async def test_any_number_of_questions_at_once(rig: Make) -> None:
    async def all_at_once(agent: FakeAgent) -> TurnOutcome | None:
        asked = [agent.ask(f"p{number}", command(f"make {number}")) for number in range(MANY)]
        verdicts = await asyncio.gather(*asked)
        agent.say(f"{sum(verdict.allow for verdict in verdicts)} allowed")
        return None

    server = await rig(fake(all_at_once, capabilities=ASKING))
    run = await server.submit(mode="oneshot", approval_policy="ask_all")
    approvals = await server.pending(run, MANY)
    assert sorted(one.title for one in approvals) == sorted(f"make {number}" for number in range(MANY))
    for approval in approvals:
        await server.decide(approval, "allow_once")
    ended = await server.until(run, State.COMPLETED, within=120)
    assert [one["text"] for one in await server.data(run, "message.completed")] == [f"{MANY} allowed"]
    assert ended.attempt == 1


async def test_a_worker_of_any_kind_keeps_to_the_limit_of_events(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    limits = replace(run.limits, events=100)
    await server.store.write(lambda tx: tx.runs.save(replace(tx.runs.lock(run.pk), raised_limits=limits)))
    said = {"type": "message.completed", "data": {"item_id": "1", "text": "more"}}
    call = {"token": lease["token"], "events": [said] * 150}
    await worker.call(f"/{run.id}/events", batch=1, **call)
    with pytest.raises(Conflict, match="100 events"):
        await worker.call(f"/{run.id}/events", batch=2, **call)
    end = {"token": lease["token"], "batch": 2, "outcome": "failed", "code": "event_limit"}
    await worker.call(f"/{run.id}/ack", **end)
    ended = await server.run(run)
    assert (ended.state, ended.error and ended.error.code) == ("failed", "event_limit")


async def test_preflights_are_of_what_is_offered(rig: Make) -> None:
    server, worker, _, _ = await leased(rig)
    check = {"status": "ok", "capabilities": {}, "checked_at": 1}
    await worker.offer("r9", checks=[{**check, "name": name} for name in ("fake", "codex", "x" * 5000)])
    found = await server.store.read(lambda tx: tx.workers.checks(server.shop.worker.host_id))
    assert [one.name for one in found] == ["fake"]
