"""How fast runs are taken and carried out without HTTP, on SQLite and on Postgres, beside other durable queues.

Two kinds of no-op runs: `queue` claims, executes and settles by the store alone, fenced and with its events, as other
queues do; `agent` is the real worker with the echo backend: sessions, turns, prompts, messages, some ten events a run.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import structlog

from bench.bench_store import Bare, against_commits, beside, commit, cycle, drain, rate, register, submit
from bench.figure import Figure
from bench.peers import drive, install
from bench.shared import Databases, databases, inside
from overnight.compose.parts import Parts
from overnight.domain.request import Principal
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.ports.notifier import CHANGES
from overnight.ports.tables import RunFilter

PEERS = {"dbos": "Postgres", "pgqueuer": "Postgres", "procrastinate": "Postgres", "saq": "Valkey"}
SECONDS, SLICES, SLOTS = 2.0, 6, 64
SPEC = RunSpec(goal="Say hello and stop. " * 10, backend="echo", mode="oneshot", labels={"team": "a"})
BY = Principal(owner="usr_local", name="bench")
Rate = Callable[[float], Awaitable[float]]


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with databases() as found:
        commits = Bare(found.folder / "bare.db", commit)
        for name in found.stores:
            async for figure in _enqueued(found, name, commits):
                yield figure
            async for figure in _drained(found, name):
                yield figure
            async for figure in _carried_out(found, name, 3000 if long else 600, commits):
                yield figure
        for figure in await asyncio.to_thread(lambda: list(_peers(found, 4000 if long else 1500))):
            yield figure
        for reason in found.missing:
            yield Figure(name=f"not measured; {reason}", value=0, unit="")


async def _enqueued(found: Databases, name: str, commits: Bare) -> AsyncIterator[Figure]:
    """The unit that a submission is, without admission."""
    store = found.store(f"{name}")
    await store.start()
    for clients, aim in ((1, "≥ 0.5 ×"), (16, "≥ 2 ×")):
        one, bare = await beside(_submitting(store.write, clients), commits)
        yield against_commits(f"{name}: queue, {clients} submitting", one, bare, aim)
    await store.close()


def _submitting(write: Callable[..., Awaitable[object]], clients: int) -> Rate:
    return lambda seconds: rate(lambda: write(submit), seconds, clients=clients)


async def _drained(found: Databases, name: str) -> AsyncIterator[Figure]:
    store = found.store(f"{name}-drain")
    await store.start()
    worker = await store.write(register)
    bare: Bare | BareInPostgres = (
        Bare(found.folder / "cycles.db", cycle) if name == "sqlite" else BareInPostgres(found.fresh())
    )
    pairs = []
    for _ in range(SLICES):
        await asyncio.gather(*(store.write(submit) for _ in range(2000)))
        pairs.append((await drain(store, worker, SECONDS / SLICES), bare.rate(SECONDS / SLICES)))
    await store.close()
    yield Figure(
        name=f"{name}: queue, claimed, executed, settled",
        value=statistics.median(one for one, _ in pairs),
        unit="runs/s",
        limit=statistics.median(other for _, other in pairs),
        limit_name="bare lease + ack",
        aim="≥ 1 ×",
    )


async def _carried_out(found: Databases, name: str, count: int, commits: Bare) -> AsyncIterator[Figure]:
    """Through the service, and by the real worker."""
    more = {"OVERNIGHT_DATABASE_URL": found.fresh()} if name == "postgres" else {}
    async with inside(found.folder / f"inside-{name}", SLOTS, more) as parts:
        for clients in (1, 16):
            one = await rate(lambda: parts.service.submit(SPEC, BY), 1.0, clients=clients)
            bare = commits.rate(0.5)
            yield against_commits(f"{name}: RunService.submit, {clients} submitting", one, bare, "")
        missing = max(0, count - await _count(parts, None))
        await asyncio.gather(*(parts.service.submit(SPEC, BY) for _ in range(missing)))
        count = await _count(parts, None)
        used, begun = time.process_time(), time.perf_counter()
        await parts.supervisor.start()
        await _until_completed(parts, count)
        seconds, used = time.perf_counter() - begun, time.process_time() - used
        await parts.supervisor.shutdown()
    yield Figure(name=f"{name}: agent, turns of the echo backend", value=count / seconds, unit="runs/s")
    yield Figure(name=f"{name}: agent, processor time of one", value=1000 * used / count, unit="ms")


async def _count(parts: Parts, state: State | None) -> int:
    counts = await parts.store.read(lambda tx: tx.runs.counts(RunFilter()))
    return sum(counts.values()) if state is None else counts.get(state, 0)


async def _until_completed(parts: Parts, count: int) -> None:
    """Asked seldom, for it takes of the time that is measured."""
    subscription = parts.services.notifier.subscribe(CHANGES)
    try:
        while await _count(parts, State.COMPLETED) < count:
            await asyncio.sleep(0.05)
            await subscription.next(5)
    finally:
        subscription.close()


class BareInPostgres:
    """The least that a queue does for a job in Postgres: a durable lease and a durable, fenced ack."""

    LEASE = (
        "UPDATE j SET state = 'running', token = token + 1 WHERE pk = (SELECT pk FROM j WHERE state = 'queued'"
        " ORDER BY pk LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING pk, token"
    )
    ACK = "UPDATE j SET state = 'done' WHERE pk = %s AND token = %s"

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        run = self._connection.execute
        run("CREATE TABLE j (pk bigserial PRIMARY KEY, state text, token bigint)")
        run("CREATE INDEX due ON j (pk) WHERE state = 'queued'")
        run("INSERT INTO j (state, token) SELECT 'queued', 0 FROM generate_series(1, 50000)")

    def rate(self, seconds: float) -> float:
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            row = self._connection.execute(self.LEASE).fetchone()
            assert row is not None
            self._connection.execute(self.ACK, row)
            done += 1
        return done / (time.perf_counter() - begun)


def _peers(found: Databases, count: int) -> Iterator[Figure]:
    """What cannot be installed or started here is said, and left out."""
    for peer in peers(found):
        if isinstance(peer, str):
            yield Figure(name=peer, value=0, unit="")
            continue
        label = f"{peer.name} ({PEERS[peer.name]})"
        try:
            yield Figure(name=f"{label}, 1 submitting", value=peer.enqueue(count // 3, 1), unit="jobs/s")
            yield Figure(name=f"{label}, 16 submitting", value=peer.enqueue(count, 16), unit="jobs/s")
            jobs = count // 3 + count
            yield Figure(name=f"{label}, backlog carried out", value=peer.drain(jobs, 60), unit="jobs/s")
        except (RuntimeError, TimeoutError, AssertionError) as reason:
            yield Figure(name=f"{label} could not be measured: {reason}"[:150], value=0, unit="")


def peers(found: Databases) -> Iterator[drive.Peer | str]:
    """Every peer, set up; or why there is none."""
    try:
        python: Path = install.python()
    except install.PeersUnavailable as reason:
        yield f"no peers here; {reason}"[:150]
        return
    for name, base in PEERS.items():
        there = found.postgres if base == "Postgres" else found.redis
        if there is None:
            continue
        url = found.fresh() if base == "Postgres" else f"{found.redis}"
        peer = drive.Peer(name=name, url=url, python=python, folder=found.folder)
        try:
            peer.setup()
        except RuntimeError as reason:
            yield str(reason)[:150]
        else:
            yield peer
