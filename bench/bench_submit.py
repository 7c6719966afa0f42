"""How long a client waits until a run is safe, until it hears of it, and until it has begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import orjson

from bench import stage
from bench.asking import Asker
from bench.bench_store import Bare, commit
from bench.figure import Figure

BODY = {"goal": "Say hello and stop. " * 10, "backend": "echo", "mode": "oneshot", "labels": {"team": "a"}}
SLICES, SLICE = 12, 100
PACE_S, PACED = 0.05, 160
NEEDLES = (b"\ndata: ", b'"run.started"', b'"run.completed"')
PARTS = (("p50", 0.5), ("p99", 0.99))


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    yield from _posted()
    yield from _heard()


def _posted() -> Iterator[Figure]:
    """Without a worker: what is measured is admission alone."""
    with stage.server("--no-worker") as server, stage.bare("echo") as (port, _), stage.folder() as folder:
        client, echo = Asker(server.port, stage.headers()), Asker(port)
        bare = Bare(folder / "bare.db", commit)

        def limit() -> None:
            echo.post("/", BODY)
            commit(bare.connection)

        for _ in range(200):
            client.post("/api/v1/runs", BODY)
        pairs = [(_times(lambda: client.post("/api/v1/runs", BODY)), _times(limit)) for _ in range(SLICES)]
    ours = list(chain.from_iterable(one for one, _ in pairs))
    least = list(chain.from_iterable(other for _, other in pairs))
    for (name, part), aim in zip(PARTS, ("≤ 2.6", "≤ 10"), strict=True):
        yield Figure(
            name=f"POST /runs until it is on the disk, {name}",
            value=1000 * stage.percentile(ours, part),
            unit="ms",
            limit=1000 * stage.percentile(least, part),
            limit_name="bare ASGI echo + one commit",
            aim=aim,
        )


def _heard() -> Iterator[Figure]:
    """Twenty a second, each followed by a subscriber of its own."""
    with stage.server() as server:
        for _ in range(40):
            _one(server.port)
        found, due = [], time.perf_counter()
        for _ in range(PACED):
            found.append(_one(server.port))
            due += PACE_S
            time.sleep(max(0.0, due - time.perf_counter()))
        waits = [_wait(server.events(run)) for run, *_ in found]
    named = (
        ("submit → first event at a subscriber", [1000 * one[1] for one in found], ("", "≤ 30")),
        ("submit → run.started at a subscriber", [1000 * one[2] for one in found], ("", "")),
        ("submit → run.completed at a subscriber", [1000 * one[3] for one in found], ("", "")),
        ("run.queued → run.started, as recorded", waits, ("≤ 3", "≤ 10")),
    )
    for what, values, aims in named:
        for (name, part), aim in zip(PARTS, aims, strict=True):
            yield Figure(name=f"{what}, {name}", value=stage.percentile(values, part), unit="ms", aim=aim)


def _one(port: int) -> tuple[str, float, float, float]:
    """The run, and the seconds until its first event, its start and its end have been heard."""
    client, reader = Asker(port, stage.headers()), Asker(port, stage.headers())
    begun = time.perf_counter()
    run = str(orjson.loads(client.post("/api/v1/runs", BODY))["id"])
    client.close()
    first, started, completed = reader.first_of(f"/api/v1/runs/{run}/stream", *NEEDLES)
    return run, first - begun, started - begun, completed - begun


def _wait(events: Sequence[Mapping[str, Any]]) -> float:
    """Milliseconds in the queue."""
    at = {event["type"]: datetime.fromisoformat(event["at"]) for event in events}
    return (at["run.started"] - at["run.queued"]).total_seconds() * 1000


def _times(call: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(SLICE):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return found
