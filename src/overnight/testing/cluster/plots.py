"""Plots: which nemeses act on a cluster, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress

from overnight.testing.cluster.members import Member
from overnight.testing.cluster.nemeses import ALL, Nemesis
from overnight.testing.cluster.nemeses.databases import lose_valkey
from overnight.testing.cluster.stage import Stage
from overnight.testing.history.recorder import boot
from overnight.testing.signals import eventually

REST_S = (0.5, 2.5)
"""Between the end of one nemesis and the beginning of the next."""


LONG_S = 60.0
"""How long Valkey is away when it is away for long."""


def at_random(seconds: float, *, side_by_side: int = 1) -> Callable[[Stage], Awaitable[None]]:
    """Nemeses drawn by chance, `side_by_side` of them at any time, until so many seconds have passed.

    Beside them Valkey is away for a minute, where there is the time for it.
    """

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
            if seconds >= 3 * LONG_S and stage.cluster.valkey is not None:
                group.create_task(_without_valkey(stage, seconds / 3, LONG_S))

    return plot


def valkey_away(seconds: float = LONG_S) -> Callable[[Stage], Awaitable[None]]:
    """Nothing but that: Valkey is killed, and away for so long, while everybody works."""

    async def plot(stage: Stage) -> None:
        await _without_valkey(stage, REST_S[1], seconds)
        await asyncio.sleep(REST_S[1])

    return plot


async def _without_valkey(stage: Stage, after_s: float, seconds: float) -> None:
    await asyncio.sleep(after_s)
    await lose_valkey(stage, seconds)


async def _act(stage: Stage, possible: list[Nemesis], until: float) -> None:
    weights = [nemesis.weight for nemesis in possible]
    while True:
        await asyncio.sleep(stage.chance.uniform(*REST_S))
        if boot() >= until:
            return
        nemesis = stage.chance.choices(possible, weights=weights)[0]
        if nemesis.missing(stage) is None:  # still: what it would hurt may be away
            await nemesis.act(stage)


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


ELSEWHERE = frozenset({"shared root", "git workspace"})
"""Workspaces with which a run may go on at another host."""


async def richest(stage: Stage) -> Member:
    """The worker with most runs, and with one of each kind that may go on elsewhere if any has that soon."""
    hosts = {member.host_id: member for member in stage.cluster.workers}
    with suppress(AssertionError):
        return hosts[await eventually(lambda: _richest(stage, hosts, ELSEWHERE), within=20, every=0.2)]
    return hosts[await eventually(lambda: _richest(stage, hosts, frozenset()), within=60, every=0.2)]


async def _richest(stage: Stage, hosts: Container[str | None], wanted: frozenset[str]) -> str | None:
    """The host with most runs of those that have all these kinds; None when there is none."""
    held: dict[str, list[str]] = {}
    for run_id, host in (await stage.workload.client.holds()).items():
        if host in hosts:
            held.setdefault(host, []).append(stage.workload.places.get(run_id, ""))
    rich = [host for host, places in held.items() if wanted <= set(places)]
    return max(rich, key=lambda host: len(held[host]), default=None)


async def one_of_each(stage: Stage) -> None:
    """Kill a server, a worker, Postgres and Valkey, one after the other, while runs are under way."""
    cluster = stage.cluster
    assert cluster.postgres is not None
    server = cluster.servers[0]
    await asyncio.sleep(3)
    await lose_valkey(stage, 6)
    await asyncio.sleep(1)
    async with stage.fault("kill -9", server.name, "for 2 s", lost=server):
        await server.program.kill()
        await asyncio.sleep(2)
        await server.start()
    await asyncio.sleep(1)
    worker, away = await richest(stage), cluster.layout.lease_s + 3
    async with stage.fault("kill -9", worker.name, f"for {away:.0f} s: others take its runs", lost=worker):
        await worker.program.kill()
        await asyncio.sleep(away)
        await worker.start()
    async with stage.fault("killed and restarted", "postgres"):
        await cluster.postgres.stop("kill")
        await cluster.postgres.start()
