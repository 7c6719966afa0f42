"""Whether a run costs more when the table has many: the same calls, one at a time, with few runs and with many."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from bench.bench_store import CLOCK, HOST, register, submit
from bench.figure import Figure
from bench.shared import databases
from overnight.domain.event import Draft
from overnight.domain.lease import Lease
from overnight.domain.run import Run
from overnight.domain.states import Input
from overnight.domain.worker import Offer, Worker
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Store, Transaction

FEW, MANY, MOST = 1_000, 10_000, 100_000
FILL, CALLS = 100, 150


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    with databases() as found:
        for reason in found.missing:
            yield Figure(name=f"not measured; {reason}", value=0, unit="")
        for name in found.stores:
            store = found.store(f"table-{name}")
            await store.start()
            worker = await store.write(register)
            first: dict[str, float] = {}
            filled = 0
            for size in (FEW, MOST if long else MANY):
                while filled < size:
                    await store.write(_hundred)
                    filled += FILL
                costs = await _costs(store, worker)
                first = first or costs
                for what, value in costs.items():
                    yield Figure(
                        name=f"{name}: {what}, {size:,} runs in the table",
                        value=value,
                        unit="ms",
                        limit=first[what],
                        limit_name=f"with {FEW:,}",
                        aim="flat",
                    )
            await store.close()


async def _costs(store: Store, worker: Worker) -> dict[str, float]:
    """Milliseconds of the quickest tenth of calls that wait for their answers: what other programs do is left out."""
    offer = Offer(worker_pk=worker.pk, host_id=HOST, backends=("echo",), free=1)
    claimed: list[Run] = []

    def claim(tx: Transaction) -> Run:
        (run,) = tx.leases.claim(offer, CLOCK.wall_ms())
        return tx.runs.save(run.moved(Input.CLAIM, CLOCK.wall_ms(), worker=worker.id))

    async def claims() -> None:
        claimed.append(await store.write(claim))

    async def settles() -> None:
        run = claimed.pop()
        await store.write(lambda tx: _settled(tx, run))

    return {
        "submit": await _quickest(lambda: store.write(submit)),
        "claim": await _quickest(claims),
        "settle": await _quickest(settles),
        "first page of 50": await _quickest(
            lambda: store.read(lambda tx: tx.runs.page(RunFilter(), limit=50))
        ),
    }


def _settled(tx: Transaction, run: Run) -> None:
    now = CLOCK.wall_ms()
    held = tx.leases.check(Lease(run_pk=run.pk, token=run.token, trusted_until=CLOCK.boot() + 15))
    tx.events.append(held.pk, [Draft(type="run.completed", data={"by": "backend"})], now)
    tx.runs.save(held.moved(Input.COMPLETE, now))


def _hundred(tx: Transaction) -> None:
    for _ in range(FILL):
        submit(tx)


async def _quickest(call: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        await call()
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.quantiles(times, n=10, method="inclusive")[0]
