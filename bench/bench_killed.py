"""What kill -9 of a worker costs: jobs started twice, ended twice or lost, and how long until it is made good.

Also a run that takes three times its lease, and what keeping leases costs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import psycopg

from bench import stage
from bench.apart import Apart, apart
from bench.bench_queue import PEERS, peers
from bench.figure import Figure
from bench.shared import Databases, databases
from overnight.testing.signals import wait_until

JOBS, AT = 1000, 300
LEASE_S, HELD = 5, 40
LONG = f"sleep {3 * LEASE_S}"
CONFIG = f'[backends.long]\nkind = "command"\ncommand = ["/bin/sh", "-c", "{LONG}"]\n'


def figures(*, long: bool) -> Iterator[Figure]:
    with databases() as found:
        if found.postgres is not None:
            yield from _killed(found)
            yield from _kept(found)
        for reason in found.missing:
            yield Figure(name=f"not measured; {reason}", value=0, unit="")
        yield from _of_peers(found, 70 if long else 8)


def _killed(found: Databases) -> Iterator[Figure]:
    """The next worker starts at once in the same data directory, as a service manager would have it."""
    with apart(found, more={"OVERNIGHT_SLOTS": "16"}) as made:
        _submitted(made, JOBS)
        worker = made.worker(data="w")
        wait_until(lambda: _done(made) >= AT, within=120, every=0.01, what=f"{AT} runs are done")
        under_way = made.counts()
        worker.kill()
        killed = time.monotonic()
        worker.wait()
        made.workers.clear()
        done = _done(made)
        made.worker(data="w")
        wait_until(lambda: _done(made) > done, within=60, every=0.01, what="it goes on")
        back = time.monotonic() - killed
        wait_until(lambda: _done(made) >= JOBS, within=300, every=0.1, what="everything is done")
        turns = _events(made, "turn.started")
        ends = _events(made, "run.completed")
    label = f"kill -9 at {done} of {JOBS} runs"
    yield Figure(name=f"{label}: under way then", value=under_way.get("running", 0), unit="runs")
    yield Figure(name=f"{label}: until the next one completes", value=back, unit="s", aim="≤ 5")
    for what, counted in (("started", turns), ("completed", ends)):
        twice = sum(times > 1 for times in counted.values())
        yield Figure(
            name=f"{label}: {what} twice", value=twice, unit="runs", aim="0" if what != "started" else ""
        )
    yield Figure(name=f"{label}: lost", value=JOBS - len(ends), unit="runs", aim="0")


def _submitted(made: Apart, jobs: int) -> None:
    http = made.servers[0].http
    for _ in range(jobs):
        answer = http.post("/api/v1/runs", json={"goal": "x", "backend": "echo", "mode": "oneshot"})
        assert answer.status_code == 202, answer.text


def _done(made: Apart) -> int:
    return made.counts().get("completed", 0)


def _events(made: Apart, type: str) -> Counter[int]:
    """How often each run has one of that type."""
    with psycopg.connect(made.environment["OVERNIGHT_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT stream_pk FROM events WHERE type = %s", (type,)).fetchall()
    return Counter(int(pk) for (pk,) in rows)


def _kept(found: Databases) -> Iterator[Figure]:
    """Agents that work three times as long as a lease lasts."""
    more = {"OVERNIGHT_SLOTS": str(HELD), "OVERNIGHT_LEASE_S": str(LEASE_S), "OVERNIGHT_GRACE_S": "1"}
    with apart(found, config=CONFIG, more=more) as made:
        worker = made.worker()
        made.ready(1)
        http = made.servers[0].http
        for _ in range(HELD):
            http.post("/api/v1/runs", json={"goal": "x", "backend": "long", "mode": "oneshot"})
        wait_until(
            lambda: made.counts().get("running", 0) >= HELD, within=60, every=0.05, what="all of them run"
        )
        used, begun = stage.cpu(worker.pid), time.monotonic()
        time.sleep(LEASE_S)
        load = (stage.cpu(worker.pid) - used) / (time.monotonic() - begun)
        wait_until(lambda: _done(made) >= HELD, within=60, every=0.05, what="all of them are done")
        turns = _events(made, "turn.started")
    yield Figure(
        name=f"{HELD} runs of three leases: executed more than once",
        value=sum(times > 1 for times in turns.values()),
        unit="runs",
        aim="0",
    )
    yield Figure(name=f"processor of a worker that keeps {HELD} of them", value=100 * load, unit="%")


def _of_peers(found: Databases, patience_s: float) -> Iterator[Figure]:
    for peer in peers(found):
        if isinstance(peer, str):
            yield Figure(name=peer, value=0, unit="")
            continue
        label = f"{peer.name} ({PEERS[peer.name]}), kill -9 at {AT} of {JOBS}"
        try:
            killed = peer.killed(JOBS, AT, patience_s)
        except (RuntimeError, TimeoutError, AssertionError) as reason:
            yield Figure(name=f"{label} could not be measured: {reason}"[:150], value=0, unit="")
            continue
        yield Figure(name=f"{label}: started twice", value=killed.twice_started, unit="jobs")
        yield Figure(name=f"{label}: ended twice", value=killed.twice_ended, unit="jobs")
        yield Figure(name=f"{label}: not done {patience_s:.0f} s later", value=killed.open, unit="jobs")
        if killed.back_s:
            yield Figure(
                name=f"{label}: until the last of those cut off has ended", value=killed.back_s, unit="s"
            )
