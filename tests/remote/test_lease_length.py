"""The length of leases is the server's, and may change while a worker runs: never is a lease shorter than trusted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.engine.conftest import fake
from tests.remote.conftest import Make
from tests.remote.rig import RemoteRig
from tests.remote.test_hostile_workers import hostile, leased
from tests.remote.test_late_news import patient

from overnight.client.worker.length import LeaseLength
from overnight.compose.remote import timing_of
from overnight.domain.states import State
from overnight.engine.local_source import offer_of
from overnight.engine.policy import Timing
from overnight.engine.remote.service import LeaseService
from overnight.errors import ConfigInvalid
from overnight.server.leases import LeaseCalls
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def length_ms(server: RemoteRig) -> int:
    """Of the one lease there is."""

    def query(tx: Any) -> int:
        [(length,)] = tx._context.link.rows("SELECT length FROM leases")
        return int(length)

    return await server.store.read(query)


def restarted(server: RemoteRig, lease_s: float) -> LeaseCalls:
    """The server with another configuration."""
    timing = replace(server.timing, lease_s=lease_s)
    kept = replace(server.leases._kept, timing=timing, offer=partial(offer_of, lease_s=lease_s))
    return LeaseCalls(LeaseService(kept), server.clock, server.policy, timing)


async def test_a_lease_is_as_long_as_its_worker_counts_on(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    worker = await hostile(server)
    run = await server.submit(mode="oneshot")
    grant = await worker.offer(lease_s=100)
    [lease] = grant["runs"]
    assert (grant["lease_s"], await length_ms(server)) == (server.timing.lease_s, 100_000)
    renewed = await worker.call("/renew", tokens={run.id: lease["token"]}, lease_s=20)
    assert (renewed["lease_s"], await length_ms(server)) == (server.timing.lease_s, 100_000), (
        "it never shrinks"
    )
    await worker.call(f"/{run.id}/renew", token=lease["token"], lease_s=200)
    assert await length_ms(server) == 200_000
    taken = await worker.call(f"/{run.id}/take", token=lease["token"], lease_s=300)
    assert await length_ms(server) == 300_000
    worker.line.calls = restarted(server, 400)
    await worker.call("/renew", tokens={run.id: taken["token"]})
    assert await length_ms(server) == 400_000


async def test_a_worker_that_does_not_say_has_the_servers_length(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    own = round(server.timing.lease_s * 1000)
    assert await length_ms(server) == own
    await worker.call(f"/{run.id}/take", token=lease["token"])
    assert await length_ms(server) == own


@pytest.mark.parametrize("lease_s", [9.0, 60.0])
async def test_a_worker_follows_a_server_that_was_configured_anew(rig: Make, lease_s: float) -> None:
    backend = fake(patient)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await server.until(run, State.RUNNING)
    before = server.length.seconds
    server.line.calls = restarted(server, lease_s)
    await server.worker.renew()
    assert await length_ms(server) >= round(max(before, lease_s) * 1000)
    # What the former server was still asked may be answered last, and unsay it until the next renewal.
    await eventually(lambda: server.length.seconds == lease_s)
    agent.go.set()
    assert (await server.until(run, State.COMPLETED)).attempt == 1
    second = await server.submit(mode="oneshot", workspace=str(server.workspace("two")))
    await eventually(lambda: len(backend.agents) == 2)
    assert await length_ms(server) >= round(lease_s * 1000)
    backend.agents[1].go.set()
    await server.until(second, State.COMPLETED)


def test_what_a_worker_counts_on() -> None:
    own = Timing(grace_s=5)
    length = LeaseLength(partial(timing_of, own))
    with pytest.raises(ConfigInvalid):
        _ = length.seconds
    with pytest.raises(ConfigInvalid):
        length.begin(6)
    length.begin(15)
    for heard, counted in ((0.0, 15.0), (30.0, 30.0), (6.0, 30.0), (6.0, 30.0), (12.0, 12.0)):
        length.heard(heard)
        assert length.seconds == counted
    assert length.timing.renew_s < 12 / 5
    assert length.keeper_deadline(112.0) == 104.0, "agents are gone a grace, a sweep and a second before"
