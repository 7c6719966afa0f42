"""Servers in miniature: followers over one store, each with its own notifier, and a count of what they read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from overnight.clock import SystemClock
from overnight.domain.event import Draft, Recorded
from overnight.domain.run import Run
from overnight.engine.channel import Batch
from overnight.engine.follow import Follower
from overnight.ports.notifier import Notifier
from overnight.stores.sql.sqlite import SqliteStore

T = TypeVar("T")
CLOCK = SystemClock()


class Counting:
    """A unit of work that counts what is read through it."""

    def __init__(self, store: SqliteStore) -> None:
        self.reads = 0
        self._store = store

    async def read(self, query: Callable[[Any], T]) -> T:
        self.reads += 1
        return await self._store.read(query)

    async def write(self, unit: Callable[[Any], T], *, urgent: bool = False) -> T:
        return await self._store.write(unit, urgent=urgent)


class Server:
    """One server's view: a follower with its own notifier, and readers that keep what they got."""

    def __init__(self, store: SqliteStore, notifier: Notifier, *, poll_s: float = 60.0) -> None:
        self.uow = Counting(store)
        self.follower = Follower(self.uow, notifier, poll_s=poll_s)

    def read(self, run: Run, after: int = 0) -> History:
        """Begin to read."""
        return History(self.follower, run, after)


class History:
    """What one reader was given, so far."""

    def __init__(self, follower: Follower, run: Run, after: int) -> None:
        self.seqs: list[int] = []
        self.events: list[Recorded] = []
        self.reader = follower.events(run, after)
        self.task = asyncio.create_task(self._read())

    @property
    def last(self) -> int:
        return self.seqs[-1] if self.seqs else 0

    async def _read(self) -> None:
        while (entries := await self.reader.read()) is not None:
            for entry in entries:
                if isinstance(entry, Batch):
                    self.events += entry.items
                    self.seqs += [event.seq for event in entry.items]
        self.reader.close()


async def append(store: SqliteStore, run: Run, count: int = 1, *, type: str = "message.completed") -> int:
    """Record some events; the seq of the last."""
    drafts = [Draft(type=type, data={"n": number}) for number in range(count)]
    recorded = await store.write(lambda tx: tx.events.append(run.pk, drafts, CLOCK.wall_ms()))
    return recorded[-1].seq
