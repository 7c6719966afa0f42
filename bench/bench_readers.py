"""Two thousand readers over two servers: what each of them takes, and how late it hears."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import stage
from bench.apart import apart
from bench.figure import Figure
from bench.readers import Readers
from bench.shared import Databases, databases

READERS, EVERY = 2000, 200
CROWD = {"OVERNIGHT_MAX_CONNECTIONS": "5000", "OVERNIGHT_MAX_CONNECTIONS_PER_USER": "5000"}


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    with databases() as found:
        for reason in found.missing:
            yield Figure(name=f"not measured; {reason}", value=0, unit="")
        if found.postgres is None:
            return
        yield from _measured(found, redis=False)
        if found.redis is not None:
            yield from _measured(found, redis=True)


def _measured(found: Databases, *, redis: bool) -> Iterator[Figure]:
    """All of them follow one run that waits, then goes; half of them at the server that did not take it."""
    by = "Valkey" if redis else "NOTIFY"
    with apart(found, servers=2, redis=redis, more={**CROWD, "OVERNIGHT_KEEPALIVE_S": "300"}) as made:
        run = made.servers[0].submit("echo", mode="oneshot")["id"]
        path = f"/api/v1/runs/{run}/stream"
        pids = [server.process.pid for server in made.servers if server.process is not None]
        for server in made.servers:
            warm = Readers(20, server.port, path, stage.headers())
            warm.heads()
            warm.close()
        before = sum(map(stage.memory, pids))
        crowds = [Readers(READERS // 2, server.port, path, stage.headers()) for server in made.servers]
        for crowd in crowds:
            crowd.heads()
        grown = (sum(map(stage.memory, pids)) - before) * 1024 / READERS
        yield Figure(
            name=f"{by}: memory for each of {READERS} readers over two servers",
            value=grown,
            unit="KiB",
            aim="≤ 15",
        )
        begun = time.perf_counter()
        made.worker()
        made.servers[0].until(run, "completed")
        counts = [crowd.count(most_s=20, quiet_s=1.0, since=begun) for crowd in crowds]
        for name, count in zip(("that took it", "that did not"), counts, strict=True):
            yield Figure(
                name=f"{by}: events heard by each reader at the server {name}",
                value=count.frames / (READERS // 2),
                unit="events",
            )
        for crowd in crowds:
            crowd.close()
