"""What the tests of Postgres have in common: a fact that is counted up, and batches of known content."""

import asyncio
import threading
from typing import Any

import pytest

from overnight.clock import SystemClock
from overnight.errors import StartRefused
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.postgres import PostgresStore

CLOCK = SystemClock()


class Told(InprocNotifier):
    """Remembers what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []

    def publish(self, notices: Any) -> None:
        self.topics += [notice.topic for notice in notices]


def put(name: str, tx: Transaction) -> int:
    count = int(tx.installation.get(name) or 0) + 1
    tx.installation.put(name, str(count))
    tx.notify(name)
    return count


async def get(store: PostgresStore, name: str) -> str | None:
    return await store.read(lambda tx: tx.installation.get(name))


async def together(store: PostgresStore, *units: Any) -> list[Any]:
    """All units in one transaction: the first holds it open until the rest have come."""
    gate = threading.Event()
    calls = [asyncio.ensure_future(store.write(unit)) for unit in (lambda _: gate.wait(60), *units)]
    await asyncio.sleep(0)
    gate.set()
    return (await asyncio.gather(*calls, return_exceptions=True))[1:]


def pid_of(store: PostgresStore) -> int:
    return int(store._writer._link.raw.info.backend_pid)  # type: ignore[union-attr]


async def refused(url: str) -> StartRefused:
    store = PostgresStore(url, CLOCK, InprocNotifier())
    with pytest.raises(StartRefused) as caught:
        await store.start()
    await store.close()
    return caught.value
