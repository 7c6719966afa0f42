"""Links, databases and hosts that fail without a word: nobody is told, and nobody may guess wrong."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.conftest import Try

from overnight.testing.cluster.nemeses import named
from overnight.testing.cluster.nemeses.network import hinder
from overnight.testing.cluster.nemeses.processes import freeze, kill
from overnight.testing.cluster.stage import Stage

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


async def test_partitions_and_stopped_hosts_lose_nothing_and_run_nothing_twice(attempt: Try) -> None:
    """Two of three hosts are unreachable at once, then the third stands still; one knows nothing but a server."""
    hosts: list[str | None] = []

    async def plot(stage: Stage) -> None:
        near, apart, far = stage.cluster.workers
        hosts.append(far.host_id)
        past_the_lease = stage.cluster.layout.lease_s + 2
        await stage.let_pass(2)
        async with asyncio.TaskGroup() as both:
            both.create_task(hinder(stage, far, "silent", far.links, past_the_lease))
            (lost,) = named("lose packets")
            if (missing := lost.missing(stage)) is None:
                both.create_task(lost.act(stage))
            else:
                stage.say(f"by links instead: {missing}")
                both.create_task(hinder(stage, apart, "silent", apart.links, past_the_lease))
        await named("end sessions")[0].act(stage)
        async with asyncio.TaskGroup() as both:
            both.create_task(freeze(stage, near, past_the_lease))
            both.create_task(kill(stage, far, 0))

    history = await attempt(
        plot,
        seed=31,
        runs=30,
        over_s=16,
        pace_s=0.2,
        bound_s=180,
        servers=2,
        workers=2,
        remote_workers=1,
        lease_s=6,
        namespaces=frozenset({"w2"}),
    )
    begun = [log.events[1]["data"] for log in history.logs.values() if log.events[1]["type"] == "run.started"]
    assert hosts[0] in {data["host_id"] for data in begun if isinstance(data, dict)}, (
        "it has carried nothing out"
    )
