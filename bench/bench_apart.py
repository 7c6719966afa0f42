"""Servers and workers as processes of their own: how long a run waits for its start, and what a worker weighs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import count

import orjson
import psycopg
from tests.remote.far import FarWorker

from bench import stage
from bench.apart import Apart, apart
from bench.asking import Asker
from bench.bench_queue import PEERS, peers
from bench.bench_submit import BODY, PACE_S
from bench.figure import Figure
from bench.shared import Databases, databases

PARTS = (("p50", 0.5, "≤ 3"), ("p99", 0.99, "≤ 10"))
PACED, WARM = 100, 20
IMPORTS = """
import time
begun = time.perf_counter()
from overnight.cli.staying import staying
with staying():
    import overnight.compose.worker
print(time.perf_counter() - begun)
"""


def figures(*, long: bool) -> Iterator[Figure]:
    with databases(track_commit_timestamp="on") as found:
        for reason in found.missing:
            yield Figure(name=f"not measured; {reason}", value=0, unit="")
        if found.postgres is None:
            return
        yield from _waits(found, redis=False)
        if found.redis is not None:
            yield from _waits(found, redis=True)
        yield from _weights(found)
        yield from _of_peers(found, 60 if long else 40)


def _waits(found: Databases, *, redis: bool) -> Iterator[Figure]:
    """Twenty a second, by the moments at which the database committed that a run is queued, and that it is started;
    all share this machine's clock.
    """
    with apart(found, redis=redis) as made:
        made.worker()
        made.ready(1)
        asked = dict(list(_paced(made).items())[WARM:])
        commits = _commits(made)
        stamps = [_milliseconds(made, run) for run in asked]
    queued, started = ([1000 * commits[run, type] for run in asked] for type in ("run.queued", "run.started"))
    waits = [end - begun for begun, end in zip(queued, started, strict=True)]
    whole = [end - 1000 * begun for begun, end in zip(asked.values(), started, strict=True)]
    by = f"two processes, {'Valkey' if redis else 'NOTIFY'}"
    for name, part, aim in PARTS:
        value = stage.percentile(waits, part)
        yield Figure(name=f"{by}: queued → started, commits, {name}", value=value, unit="ms", aim=aim)
    for what, values in (("asked for → started", whole), ("by the events' stamps", stamps)):
        for name, part, _ in PARTS:
            yield Figure(name=f"{by}: {what}, {name}", value=stage.percentile(values, part), unit="ms")


def _paced(made: Apart) -> dict[str, float]:
    """The runs, and when each was about to be asked for."""
    server = made.servers[0]
    client = Asker(server.port, stage.headers())
    runs, due = {}, time.perf_counter()
    for _ in range(WARM + PACED):
        asked = time.time()
        runs[str(orjson.loads(client.post("/api/v1/runs", BODY))["id"])] = asked
        due += PACE_S
        time.sleep(max(0.0, due - time.perf_counter()))
    client.close()
    for run in runs:
        server.until(run, "completed")
    return runs


def _commits(made: Apart) -> dict[tuple[str, str], float]:
    """When the transaction that holds an event was committed, by run and type of the event."""
    with psycopg.connect(made.environment["OVERNIGHT_DATABASE_URL"]) as connection:
        rows = connection.execute(
            "SELECT runs.id, events.type, extract(epoch FROM pg_xact_commit_timestamp(events.xmin))::float8"
            " FROM events JOIN runs ON runs.pk = events.stream_pk"
            " WHERE events.type IN ('run.queued', 'run.started')"
        )
        return {(run, type): at for run, type, at in rows}


def _milliseconds(made: Apart, run: str) -> float:
    events = made.servers[0].events(run, "run.queued", "run.started")
    at = {event["type"]: datetime.fromisoformat(event["at"]) for event in events}
    return (at["run.started"] - at["run.queued"]).total_seconds() * 1000


def _weights(found: Databases) -> Iterator[Figure]:
    """A worker that has carried out a hundred runs."""
    with apart(found) as made:
        server = made.servers[0]
        waiting = server.submit("echo", mode="oneshot")["id"]
        begun = time.perf_counter()
        worker = made.worker()
        server.until(waiting, "completed")
        first = time.perf_counter() - begun
        for run in [server.submit("echo", mode="oneshot")["id"] for _ in range(100)]:
            server.until(run, "completed")
        yield Figure(name="memory of a worker (RSS)", value=stage.memory(worker.pid), unit="MiB", aim="≤ 75")
        yield Figure(name="memory of a worker (PSS)", value=stage.memory(worker.pid, "Pss"), unit="MiB")
        yield Figure(
            name="a worker from its start to its first run's end", value=first, unit="s", aim="≤ 0.8"
        )
        yield from _without_database(made)
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORTS])) for _ in range(5)]
    yield Figure(name="a worker's imports", value=statistics.median(imports), unit="s", aim="≤ 0.4")


def _without_database(made: Apart) -> Iterator[Figure]:
    """`worker --server`, which reaches the server's routes alone."""
    server = made.servers[0]
    for process in made.workers:
        process.terminate()
        process.wait(20)
    made.workers.clear()
    waiting = server.submit("echo", mode="oneshot")["id"]
    far = FarWorker(server, made.root / "far")
    begun = time.perf_counter()
    try:
        far.start()
        assert far.process is not None
        server.until(waiting, "completed")
        first = time.perf_counter() - begun
        for run in [server.submit("echo", mode="oneshot")["id"] for _ in range(100)]:
            server.until(run, "completed")
        resident, shared_out = (stage.memory(far.process.pid, field) for field in ("Rss", "Pss"))
    except (AssertionError, TimeoutError) as reason:
        yield Figure(name=f"worker --server could not be measured: {reason}"[:150], value=0, unit="")
        return
    finally:
        far.stop()
    yield Figure(name="memory of a worker --server (RSS)", value=resident, unit="MiB", aim="≤ 40")
    yield Figure(name="memory of a worker --server (PSS)", value=shared_out, unit="MiB")
    yield Figure(name="a worker --server to its first run's end", value=first, unit="s", aim="≤ 0.8")


def _of_peers(found: Databases, jobs: int) -> Iterator[Figure]:
    numbers = count()
    for peer in peers(found):
        if isinstance(peer, str):
            yield Figure(name=peer, value=0, unit="")
            continue
        label = f"{peer.name} ({PEERS[peer.name]})"
        log = found.folder / f"worker-{next(numbers)}.log"
        try:
            waits = peer.latencies(jobs, PACE_S)
            with peer.worker(log) as process:
                time.sleep(3)
                weight = stage.memory(process.pid)
        except (RuntimeError, TimeoutError, AssertionError) as reason:
            yield Figure(name=f"{label} could not be measured: {reason}"[:150], value=0, unit="")
            continue
        for name, part, _ in PARTS:
            yield Figure(
                name=f"{label}: enqueued → begun, {name}", value=stage.percentile(waits, part), unit="ms"
            )
        yield Figure(name=f"{label}: memory of a worker (RSS)", value=weight, unit="MiB")
