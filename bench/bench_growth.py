"""Whether an event costs more when its run has many: the same calls at a thousand and at a million events."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from bench import stage
from bench.bench_store import CLOCK, TEXT, submit
from bench.figure import Figure
from overnight.domain.event import Draft, Recorded
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
FILL, UNIT, PAGE, CALLS = 500, 20, 100, 1000


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    del long
    with stage.folder() as folder:
        store = SqliteStore(folder / "overnight.db", CLOCK, InprocNotifier())
        await store.start()
        pk = (await store.write(submit)).pk
        first: tuple[float, float] | None = None
        for size in SIZES:
            await _fill(store, pk, size)
            found = await _appended(store, pk), await _read(store, pk, size)
            first = first or found
            for what, value, limit in zip(("appended", "read from the middle"), found, first, strict=True):
                yield Figure(
                    name=f"processor, an event {what}, in a run of {size:,}",
                    value=value,
                    unit="µs",
                    limit=limit,
                    limit_name=f"with {SIZES[0]:,}",
                    aim="flat",
                )
        await store.close()


async def _fill(store: SqliteStore, pk: int, size: int) -> None:
    unit = _append(pk, FILL)
    while await store.read(lambda tx: tx.events.mark(pk).last) < size:
        await store.write(unit)


async def _appended(store: SqliteStore, pk: int) -> float:
    unit = _append(pk, UNIT)
    return await _cost(lambda: store.write(unit)) / UNIT


async def _read(store: SqliteStore, pk: int, size: int) -> float:
    """Pages anywhere in the run."""

    def page(tx: Transaction) -> tuple[Recorded, ...]:
        return tx.events.after(pk, random.randrange(size - PAGE), PAGE)

    return await _cost(lambda: store.read(page)) / PAGE


async def _cost(call: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of processor time for one call: other programs on the machine do not count."""
    for _ in range(CALLS // 10):
        await call()
    begun = time.process_time()
    for _ in range(CALLS):
        await call()
    return 1e6 * (time.process_time() - begun) / CALLS


def _append(pk: int, size: int) -> Callable[[Transaction], object]:
    data = {"item_id": "m", "text": TEXT}
    drafts = [Draft(type="message.completed", data=data, turn=1, attempt=1)] * size
    return lambda tx: tx.events.append(pk, drafts, CLOCK.wall_ms())
