"""The SQLite store against bare SQLite: the same library, file system and durability, measured in the same call."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.figure import Figure
from overnight.clock import SystemClock
from overnight.domain.event import Draft, Recorded
from overnight.domain.lease import Lease
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.spec import RunSpec
from overnight.domain.states import Input, State
from overnight.domain.worker import Offer, Worker
from overnight.ids import new_host_id, new_run_id, new_session_id, new_worker_id
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.library import driver
from overnight.stores.sql.sqlite import SqliteStore

CLOCK = SystemClock()
HOST = new_host_id(0)
SPEC = RunSpec(goal="Say hello and stop. " * 10, backend="echo", mode="oneshot", labels={"team": "a"})
TEXT = "A line of an agent. " * 5
SECONDS, SLICES = 2.0, 8


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as folder:
        commits, cycles = Bare(Path(folder) / "bare.db", commit), Bare(Path(folder) / "cycles.db", cycle)
        store = SqliteStore(Path(folder) / "overnight.db", CLOCK, InprocNotifier())
        await store.start()
        one, bare = await beside(lambda seconds: rate(lambda: store.write(submit), seconds), commits)
        yield against_commits("submit, one client", one, bare, "≥ 0.5 ×")
        many, bare = await beside(
            lambda seconds: rate(lambda: store.write(submit), seconds, clients=16), commits
        )
        yield against_commits("submit, 16 clients", many, bare, "≥ 2 ×")
        worker = await store.write(register)
        settled, bare = await beside(lambda seconds: drain(store, worker, seconds), cycles)
        yield Figure(
            name="no-op runs claimed, recorded, settled (64 at once)",
            value=settled,
            unit="runs/s",
            limit=bare,
            limit_name="bare lease + ack",
            aim="≥ 1 ×",
        )
        for size in (1, 20, 200):
            value = size * await rate(partial(append, store, size))
            yield Figure(name=f"events appended, {size} a unit", value=value, unit="events/s", aim="≥ 10 000")
        yield Figure(name="events read in pages of 500", value=await tail(store), unit="events/s")
        if long:
            async for figure in flat(store, worker):
                yield figure
        await store.close()


def against_commits(name: str, value: float, bare: float, aim: str) -> Figure:
    return Figure(name=name, value=value, unit="runs/s", limit=bare, limit_name="bare commits", aim=aim)


class Bare:
    """The same library, file system and durability with nothing of ours: one connection, one thread."""

    def __init__(self, path: Path, call: Callable[[Any], None]) -> None:
        self.connection = driver().connect(str(path), isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute(
            "CREATE TABLE j (pk INTEGER PRIMARY KEY, state TEXT, token INTEGER, data BLOB)"
        )
        self.connection.execute("CREATE INDEX due ON j (pk) WHERE state = 'queued'")
        self.connection.execute("BEGIN")
        self.connection.executemany("INSERT INTO j (state, token) VALUES ('queued', 0)", [()] * 50_000)
        self.connection.execute("COMMIT")
        self.call = call

    def rate(self, seconds: float) -> float:
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            self.call(self.connection)
            done += 1
        return done / (time.perf_counter() - begun)


def commit(connection: Any) -> None:
    """One row a commit."""
    connection.execute("INSERT INTO j (state, token, data) VALUES ('new', 0, ?)", (b"x" * 100,))


def cycle(connection: Any) -> None:
    """The least that a queue does for a job: a durable lease and a durable, fenced ack."""
    found = connection.execute(
        "UPDATE j SET state = 'running', token = token + 1 WHERE pk ="
        " (SELECT pk FROM j WHERE state = 'queued' ORDER BY pk LIMIT 1) RETURNING pk, token"
    ).fetchall()[0]
    connection.execute("UPDATE j SET state = 'done' WHERE pk = ? AND token = ?", found)


async def beside(ours: Callable[[float], Awaitable[float]], bare: Bare) -> tuple[float, float]:
    """Our rate and the bare one, in turns, so that a noisy machine disturbs both alike."""
    found = [(await ours(SECONDS / SLICES), bare.rate(SECONDS / SLICES)) for _ in range(SLICES)]
    return statistics.median(one for one, _ in found), statistics.median(other for _, other in found)


async def rate(call: Callable[[], Awaitable[object]], seconds: float = SECONDS, *, clients: int = 1) -> float:
    """How often a second, each client waiting for its own answer before it asks again."""
    done, begun = 0, time.perf_counter()

    async def client() -> None:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await call()
            done += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - begun)


def submit(tx: Transaction) -> Run:
    """What the service does for `POST /runs`: a session, a run, and an event in both streams."""
    now = CLOCK.wall_ms()
    session = tx.sessions.add(
        Session(
            pk=0,
            id=new_session_id(now),
            owner="usr_local",
            name="bench",
            mode="oneshot",
            created_at=now,
            updated_at=now,
        )
    )
    run = tx.runs.add(
        Run(
            pk=0,
            id=new_run_id(now),
            owner="usr_local",
            state=State.QUEUED,
            spec=SPEC,
            session_pk=session.pk,
            session_id=session.id,
            host_id=HOST,
            workspace=None,
            created_at=now,
            updated_at=now,
        ),
        secret_environment={},
        idempotency=None,
    )
    tx.events.append(run.pk, [Draft(type="run.queued", data={"goal": SPEC.goal})], now)
    tx.events.append(session.pk, [Draft(type="run.linked", data={"run_id": run.id})], now)
    return run


def register(tx: Transaction) -> Worker:
    now = CLOCK.wall_ms()
    return tx.workers.add(
        Worker(
            pk=0,
            id=new_worker_id(now),
            host_id=HOST,
            host_name="bench",
            pid=1,
            version="0",
            slots=64,
            backends=("echo",),
            started_at=now,
            seen_at=now,
        )
    )


async def drain(store: UnitOfWork, worker: Worker, seconds: float = SECONDS) -> float:
    """Claim in batches, then for each run a durable, fenced end with its events, 64 at a time."""
    now = CLOCK.wall_ms()
    offer = Offer(worker_pk=worker.pk, host_id=HOST, backends=("echo",), free=64)

    def claim(tx: Transaction) -> list[Run]:
        found = []
        for run in tx.leases.claim(offer, now):
            tx.events.append(run.pk, [Draft(type="run.started", data={"worker": worker.id})], now)
            found.append(tx.runs.save(run.moved(Input.CLAIM, now, worker=worker.id, started_at=now)))
        return found

    async def settle(run: Run) -> None:
        lease = Lease(run_pk=run.pk, token=run.token, trusted_until=CLOCK.boot() + 15)

        def unit(tx: Transaction) -> None:
            held = tx.leases.check(lease)
            tx.events.append(held.pk, [Draft(type="run.completed", data={"by": "backend"})], now)
            tx.runs.save(held.moved(Input.COMPLETE, now))

        await store.write(unit)

    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        runs = await store.write(claim)
        if not runs:
            break
        await asyncio.gather(*map(settle, runs))
        done += len(runs)
    return done / (time.perf_counter() - begun)


async def append(store: SqliteStore, size: int) -> None:
    await store.write(append_to(store, size))


_stream: dict[int, int] = {}


def append_to(store: SqliteStore, size: int) -> Callable[[Transaction], object]:
    drafts = [
        Draft(type="message.completed", data={"item_id": f"m{n}", "text": TEXT}, turn=1, attempt=1)
        for n in range(size)
    ]

    def unit(tx: Transaction) -> object:
        pk = _stream.get(id(store)) or _stream.setdefault(id(store), submit(tx).pk)
        return tx.events.append(pk, drafts, CLOCK.wall_ms())

    return unit


async def tail(store: SqliteStore) -> float:
    pk, seen, begun = _stream[id(store)], 0, time.perf_counter()

    def page_after(tx: Transaction) -> tuple[Recorded, ...]:
        return tx.events.after(pk, seen, 500)

    while page := await store.read(page_after):
        seen = page[-1].seq
        if time.perf_counter() - begun > SECONDS:
            break
    return seen / (time.perf_counter() - begun)


async def flat(store: SqliteStore, worker: Worker) -> AsyncIterator[Figure]:
    """The same calls with few and with 100 000 runs in the database."""

    def hundred(tx: Transaction) -> None:
        for _ in range(100):
            submit(tx)

    async def count() -> int:
        return sum((await store.read(lambda tx: tx.runs.counts(RunFilter()))).values())

    async def measured() -> dict[str, float]:
        return {
            "submit, 16 clients": await rate(lambda: store.write(submit), clients=16),
            "claimed and settled": await drain(store, worker),
            "first pages of 50": await rate(
                lambda: store.read(lambda tx: tx.runs.page(RunFilter(), limit=50))
            ),
            "events appended, 20 a unit": 20 * await rate(lambda: store.write(append_to(store, 20))),
        }

    few, before = await count(), await measured()
    while await count() < 100_000:
        for _ in range(50):
            await store.write(hundred)
    many, after = await count(), await measured()
    for name, value in after.items():
        yield Figure(
            name=f"{name}, with {many} runs",
            value=value,
            unit="/s",
            limit=before[name],
            limit_name=f"with {few} runs",
        )
