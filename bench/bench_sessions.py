"""Saving a session's history: durable, and as dear with a megabyte of it as with nothing."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from bench.bench_store import CLOCK, Bare, commit
from bench.figure import Figure
from overnight.domain.event import Draft
from overnight.domain.session import Session, SessionMessage
from overnight.ids import new_session_id
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore

SAVES = 600
MESSAGE = "What the agent said at the end of its turn. " * 24
"""About a kilobyte."""
KILOBYTES = {"no": 0, "1 MB of": 1_000, "10 MB of": 10_000}


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as folder:
        bare = Bare(Path(folder) / "bare.db", commit)
        store = SqliteStore(Path(folder) / "overnight.db", CLOCK, InprocNotifier())
        await store.start()
        for name, kilobytes in KILOBYTES.items():
            session = await store.write(with_history(kilobytes if long or kilobytes < 10_000 else 2_000))
            ours, theirs = await saves(store, session, bare)
            for part, at in (("p50", 50), ("p99", 99)):
                yield Figure(
                    name=f"session saved with {name} history, {part}", value=percentile(ours, at), unit="ms",
                    limit=percentile(theirs, at), limit_name="bare commit", aim="≤ 10" if at == 99 else "",
                )  # fmt: skip
        yield await idle(store)
        await store.close()


def with_history(kilobytes: int) -> Callable[[Transaction], Session]:
    def unit(tx: Transaction) -> Session:
        now = CLOCK.wall_ms()
        session = tx.sessions.add(
            Session(
                pk=0, id=new_session_id(now), owner="usr_local", name="bench", mode="chat", made_for_run=False,
                created_at=now, updated_at=now,
            )
        )  # fmt: skip
        for _ in range(kilobytes):
            tx.sessions.add_message(session.pk, SessionMessage(role="assistant", text=MESSAGE, at=now))
        return session

    return unit


async def saves(store: SqliteStore, session: Session, bare: Bare) -> tuple[list[float], list[float]]:
    """Milliseconds of each save (a message, the session's row, an event in its log) and of a bare commit beside it."""
    ours, theirs = [], []

    def save(tx: Transaction) -> None:
        now = CLOCK.wall_ms()
        locked = tx.sessions.lock(session.pk)
        tx.sessions.add_message(session.pk, SessionMessage(role="assistant", text=MESSAGE, at=now))
        tx.sessions.save(replace(locked, phase="execution", updated_at=now))
        tx.events.append(session.pk, [Draft(type="session.updated", data={})], now)

    for _ in range(SAVES):
        begun = time.perf_counter()
        await store.write(save)
        ours.append((time.perf_counter() - begun) * 1000)
        begun = time.perf_counter()
        bare.call(bare.connection)
        theirs.append((time.perf_counter() - begun) * 1000)
    return ours, theirs


async def idle(store: SqliteStore) -> Figure:
    """What a thousand sessions that nobody uses cost the server."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        await store.write(lambda tx: [with_history(1)(tx).pk for _ in range(10)])
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return Figure(
        name="memory of an idle session in the server", value=max(0, grown) / 1000, unit="bytes", aim="0"
    )


def percentile(values: list[float], at: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[at - 1]
