"""The same on Postgres: its clock ends the leases, and two servers answer one worker."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from tests.engine.asking import ASKING
from tests.engine.conftest import fake
from tests.remote.conftest import Make
from tests.remote.test_lost_answers import busy, lines

from overnight.domain.states import State
from overnight.engine.local_source import offer_of
from overnight.engine.remote.service import Kept, LeaseService
from overnight.errors import LeaseLost
from overnight.server.leases import LeaseCalls
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.postgres import PostgresStore

pytestmark = pytest.mark.anyio


def on(url: str) -> Any:
    return partial(PostgresStore, url)


async def test_history_shows_no_loss(rig: Make, postgres_url: str) -> None:
    backend = fake(busy, capabilities=ASKING)
    server = await rig(backend, open_store=on(postgres_url), line_of=lines(3))
    run = await server.submit(mode="oneshot", approval_policy="ask_all")
    [approval] = await server.pending(run)
    await server.decide(approval, "allow_once")
    ended = await server.until(run, State.COMPLETED, within=60)
    said = [data["text"] for data in await server.data(run, "message.completed")]
    assert said == [*(f"message {number}" for number in range(8)), "allowed True"]
    assert (ended.attempt, len(backend.agents)) == (1, 1)


async def test_any_server_answers(rig: Make, postgres_url: str) -> None:
    """Call by call it is another server's turn, as behind a balancer."""
    server = await rig(fake(busy, capabilities=ASKING), open_store=on(postgres_url), supervise=False)
    second = PostgresStore(postgres_url, server.clock, InprocNotifier())
    await second.start()
    try:
        kept = Kept(
            uow=second, notifier=InprocNotifier(), clock=server.clock, policy=server.policy, timing=server.timing,
            offer=offer_of,
        )  # fmt: skip
        other = LeaseCalls(LeaseService(kept), server.clock, server.policy, server.timing)
        both = [server.line.calls, other]
        turn = 0

        async def deliver(path: str, document: dict[str, Any]) -> dict[str, Any]:
            nonlocal turn
            turn += 1
            server.line.calls = both[turn % 2]
            return await server.line.ask(path, document)

        server.line.deliver = deliver  # type: ignore[method-assign]
        await server.supervisor.start()
        run = await server.submit(mode="oneshot", approval_policy="ask_all")
        [approval] = await server.pending(run)
        await server.decide(approval, "allow_once")
        await server.until(run, State.COMPLETED, within=60)
        assert turn > 10
    finally:
        await server.supervisor.shutdown()
        await server.close()
        await second.close()


async def test_the_databases_clock_ends_a_lease(rig: Make, postgres_url: str) -> None:
    async def patient(agent: Any) -> None:
        await agent.go.wait()

    backend = fake(patient)
    server = await rig(backend, open_store=on(postgres_url))
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    sql = "UPDATE leases SET expires_at = 1 RETURNING run_pk"
    await server.store.write(lambda tx: tx._context.link.rows(sql))  # type: ignore[attr-defined]
    found = server.uow.run_of(run.pk)
    assert found is not None
    with pytest.raises(LeaseLost):
        await server.line.ask(f"/{run.id}/facts", {"worker": server.shop.worker.id, "token": found[1]})
    agent.go.set()
    assert (await server.until(run, State.COMPLETED)).attempt == 1
