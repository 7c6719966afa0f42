"""Several servers and workers on one Postgres and Valkey, any part of which may die at any time."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.conftest import Try
from tests.faults.latency import slowest_delivery_s

from overnight.testing.cluster.nemeses import named
from overnight.testing.cluster.plots import each, one_of_each
from overnight.testing.cluster.stage import Stage
from overnight.testing.history.takeovers import takeovers

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
SLACK_S = 2.0
"""What a busy machine may add to a bound."""


async def test_one_of_each_kind_is_killed(attempt: Try) -> None:
    history = await attempt(one_of_each, seed=30, runs=40, over_s=25, servers=2, workers=3, lease_s=6)
    assert any(one.by_others for one in takeovers(history)), (
        "the killed worker held nothing: nothing was tried"
    )


async def test_links_databases_and_hosts_that_fail_without_a_word(attempt: Try) -> None:
    plan = each(named("lose packets", "end sessions", "partition", "stop worker", "restart Postgres"))
    await attempt(plan, seed=31, runs=40, over_s=25, servers=2, workers=3, lease_s=6,
                  namespaces=frozenset({"w3"}))  # fmt: skip


async def test_the_runs_of_a_dead_host_are_taken_over_within_a_lease(attempt: Try) -> None:
    """Whatever has no agent of its own alive any more; the agents' record shows that none ever lived twice."""
    lease_s = 6.0

    async def plot(stage: Stage) -> None:
        await asyncio.sleep(6)
        for worker in stage.cluster.workers[:2]:
            async with stage.fault("kill -9", worker.name, lost=worker):
                await worker.program.kill()
        await asyncio.sleep(lease_s + 4)
        for worker in stage.cluster.workers[:2]:
            await worker.start()

    history = await attempt(plot, seed=32, runs=30, over_s=8, servers=2, workers=3, lease_s=lease_s)
    took = sorted(one.seconds for one in takeovers(history) if one.by_others)
    assert took, "the killed workers held nothing: nothing was tried"
    print("taken over by others after", [round(seconds, 2) for seconds in took])
    assert took[-1] <= lease_s + 1 + SLACK_S


async def test_without_valkey_events_come_within_the_poll_time(attempt: Try) -> None:
    poll_s = 1.0

    async def plot(stage: Stage) -> None:
        valkey = stage.cluster.valkey
        assert valkey is not None
        await asyncio.sleep(2)
        async with stage.fault("kill -9", "valkey"):
            await valkey.program.kill()
            await asyncio.sleep(12)
            await valkey.start()

    history = await attempt(plot, seed=33, runs=16, over_s=10, servers=2, workers=2, poll_s=poll_s)
    slowest = slowest_delivery_s(history, during="kill -9")
    print(f"the slowest event came after {slowest:.2f} s")
    assert slowest <= poll_s + SLACK_S
