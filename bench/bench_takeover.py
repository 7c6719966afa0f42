"""`kill -9` of a server whose agent goes on working: how long nobody hears of it, and whether anything is lost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from tests.e2e.harness import Server, Subscriber, gap_free

from bench import stage
from bench.figure import Figure
from overnight.testing.signals import wait_until

ROUNDS = 3
LINES, RATE = 3000, 200
AGENT = [["read_prompt"], {"lines": {"count": LINES, "per_second": RATE}}]


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    with stage.folder() as root:
        server = Server(root=root, scripts={"talker": AGENT})
        try:
            yield from _killed(server)
        finally:
            server.stop()


def _killed(server: Server) -> Iterator[Figure]:
    server.start()
    run = server.submit("talker", mode="oneshot")["id"]
    subscriber = Subscriber(server, f"/api/v1/runs/{run}/stream")
    gaps, starts = [], []
    for _ in range(ROUNDS):
        _hear(subscriber, 20)
        begun = time.perf_counter()
        server.kill()
        heard = len(subscriber.frames)
        server.start()
        starts.append(time.perf_counter() - begun)
        _hear(subscriber, 1, since=heard)
        gaps.append(time.perf_counter() - begun)
    server.until(run, within=60)
    events = subscriber.events()
    lines = server.printed(run).splitlines()
    yield Figure(
        name="kill -9 → the agent's next line at its subscriber",
        value=statistics.median(gaps),
        unit="s",
        limit=statistics.median(starts),
        limit_name="until the new server answers",
        aim="≤ 2",
    )
    yield Figure(
        name=f"lines of {LINES} lost or told twice over {ROUNDS} kills",
        value=abs(LINES - len(lines)) + LINES - len(set(lines)) + (0 if gap_free(events) else 1),
        unit="lines",
        aim="0",
    )


def _hear(subscriber: Subscriber, more: int, *, since: int | None = None) -> None:
    """Wait until it has heard so much more."""
    wanted = more + (len(subscriber.frames) if since is None else since)
    wait_until(lambda: len(subscriber.frames) >= wanted, within=30, every=0.002, what="the agent is heard")
