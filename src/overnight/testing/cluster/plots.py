"""Plots: which nemeses act on a cluster, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from overnight.testing.cluster.members import Member
from overnight.testing.cluster.nemeses import ALL, Nemesis
from overnight.testing.cluster.stage import Stage
from overnight.testing.history.recorder import boot

REST_S = (0.5, 2.5)
"""Between the end of one nemesis and the beginning of the next."""


def at_random(seconds: float, *, side_by_side: int = 1) -> Callable[[Stage], Awaitable[None]]:
    """Nemeses drawn by chance, `side_by_side` of them at any time, until so many seconds have passed."""

    async def plot(stage: Stage) -> None:
        possible = []
        for nemesis in ALL:
            missing = nemesis.missing(stage)
            if missing is None:
                possible.append(nemesis)
            else:
                stage.say(f"left out: {nemesis.name}: {missing}")
        async with asyncio.TaskGroup() as group:
            for _ in range(side_by_side):
                group.create_task(_act(stage, possible, boot() + seconds))

    return plot


async def _act(stage: Stage, possible: list[Nemesis], until: float) -> None:
    weights = [nemesis.weight for nemesis in possible]
    while True:
        await asyncio.sleep(stage.chance.uniform(*REST_S))
        if boot() >= until:
            return
        await stage.chance.choices(possible, weights=weights)[0].act(stage)


def each(nemeses: Sequence[Nemesis], *, rest_s: float = 1.0) -> Callable[[Stage], Awaitable[None]]:
    """One after the other, in that order; what cannot be done here is named and left out."""

    async def plot(stage: Stage) -> None:
        for nemesis in nemeses:
            await asyncio.sleep(rest_s)
            missing = nemesis.missing(stage)
            if missing is None:
                await nemesis.act(stage)
            else:
                stage.say(f"left out: {nemesis.name}: {missing}")

    return plot


async def busiest(stage: Stage) -> Member:
    """The worker that carries out most runs at this moment."""
    counts = await stage.workload.client.holders()
    return max(stage.cluster.workers, key=lambda member: counts[member.host_id or ""])


async def one_of_each(stage: Stage) -> None:
    """Kill a server, a worker, Postgres and Valkey, one after the other, while runs are under way."""
    cluster = stage.cluster
    assert cluster.postgres is not None
    assert cluster.valkey is not None
    server = cluster.servers[0]
    await asyncio.sleep(5)
    async with stage.fault("kill -9", "valkey", "for 6 s"):
        await cluster.valkey.program.kill()
        await asyncio.sleep(6)
        await cluster.valkey.start()
    await asyncio.sleep(2)
    async with stage.fault("kill -9", server.name, "for 2 s", lost=server):
        await server.program.kill()
        await asyncio.sleep(2)
        await server.start()
    await asyncio.sleep(3)
    worker, away = await busiest(stage), cluster.layout.lease_s + 4
    async with stage.fault("kill -9", worker.name, f"for {away:.0f} s: others take its runs", lost=worker):
        await worker.program.kill()
        await asyncio.sleep(away)
        await worker.start()
    async with stage.fault("killed and restarted", "postgres"):
        await cluster.postgres.stop("kill")
        await cluster.postgres.start()
