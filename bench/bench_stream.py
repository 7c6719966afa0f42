"""One agent that prints as fast as it can, and those who watch: durable events, deliveries, and how late a line is."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from tests.e2e.harness import Server

from bench import stage
from bench.figure import Figure
from bench.readers import PIECE, Readers, lateness

ROUNDS = 3
EVENTS = 50_000
LATE_EVENTS, LATE_RATE = 2000, 250
FAN_S = 2.0


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    with stage.server(config=stage.flood_config()) as server:
        yield from _late(server)
        _flooded(server, 1, count=5000)
        yield _durable(server)
        yield _again(server)
        yield from (_delivered(server, crowd) for crowd in (50, 100))


def _durable(server: Server) -> Figure:
    ours, least = _in_turns(lambda: _flooded(server, 1), _piped)
    return Figure(
        name="durable events of one agent to one subscriber",
        value=ours,
        unit="events/s",
        limit=least,
        limit_name="bare pipe, os.read + orjson",
        aim="≥ 10 000",
    )


def _again(server: Server) -> Figure:
    """A run that has ended, read from its first event."""
    run = server.http.get("/api/v1/runs", params={"limit": 1}).json()["items"][0]
    begun = time.perf_counter()
    with _reading(server, run["id"], 1) as readers:
        return Figure(
            name="events of an ended run, read again by one",
            value=readers.count(most_s=30, since=begun).rate,
            unit="events/s",
        )


def _delivered(server: Server, crowd: int) -> Figure:
    ours, least = _in_turns(lambda: _flooded(server, crowd), lambda: _fanned(crowd))
    return Figure(
        name=f"events delivered to {crowd} subscribers",
        value=ours,
        unit="events/s",
        limit=least,
        limit_name="bare raw ASGI, batches made once",
        aim="≥ 500 000",
    )


def _late(server: Server) -> Iterator[Figure]:
    """Wall clocks are compared, but only this machine's with itself."""
    prompt = f"flood {LATE_EVENTS} {LATE_RATE}"
    run, _ = _submitted(server, prompt)
    with _reading(server, run, 1) as readers:
        ours = readers.lateness()
    with _agent(prompt) as output:
        least = lateness(lambda size: os.read(output, size))
    for name, part, aim in (("p50", 0.5, ""), ("p99", 0.99, "≤ 50")):
        yield Figure(
            name=f"from an agent's line to a subscriber, {LATE_RATE}/s, {name}",
            value=1000 * stage.percentile(ours, part),
            unit="ms",
            limit=1000 * stage.percentile(least, part),
            limit_name="bare pipe",
            aim=aim,
        )


def _in_turns(ours: Callable[[], float], least: Callable[[], float]) -> tuple[float, float]:
    """The medians, measured in turns, so that both see the same machine."""
    found = [(ours(), least()) for _ in range(ROUNDS)]
    return statistics.median(one for one, _ in found), statistics.median(other for _, other in found)


def _flooded(server: Server, crowd: int, count: int = EVENTS) -> float:
    """Deliveries a second. The agent begins once all subscribers are there; each reads to the end of the run."""
    run, work = _submitted(server, f"flood {count} 0 when told")
    server.seen(run, "turn.started")
    with _reading(server, run, crowd) as readers:
        readers.heads()
        begun = time.perf_counter()
        (work / "go").touch()
        counted = readers.count(most_s=60, since=begun)
    if counted.frames < crowd * count:
        raise RuntimeError(f"{counted.frames} frames of {crowd * count} arrived")
    return counted.rate


def _submitted(server: Server, prompt: str) -> tuple[str, Path]:
    work = server.workspace(f"w{time.time_ns()}")
    return server.submit("codex", goal=prompt, mode="oneshot", workspace=str(work))["id"], work


@contextmanager
def _reading(server: Server, run: str, crowd: int) -> Iterator[Readers]:
    readers = Readers(crowd, server.port, f"/api/v1/runs/{run}/stream", stage.headers())
    try:
        yield readers
    finally:
        readers.close()


@contextmanager
def _agent(prompt: str) -> Iterator[int]:
    """The same agent with nothing in between: the descriptor of its output."""
    with subprocess.Popen(
        [sys.executable, str(stage.FLOOD), "exec"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(prompt.encode())
        process.stdin.close()
        yield process.stdout.fileno()


def _piped() -> float:
    """Messages a second that are read from a pipe and parsed, from the first bytes on."""
    with _agent(f"flood {EVENTS} 0") as output:
        rest, count = os.read(output, PIECE), 0
        begun = time.perf_counter()
        while rest:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                orjson.loads(line)
            count += len(lines)
            rest += (more := os.read(output, PIECE))
            if not more:
                break
        return count / (time.perf_counter() - begun)


def _fanned(crowd: int) -> float:
    with stage.bare("fan") as (port, _):
        readers = Readers(crowd, port, "/")
        readers.heads()
        counted = readers.count(most_s=FAN_S)
        readers.close()
        return counted.rate
