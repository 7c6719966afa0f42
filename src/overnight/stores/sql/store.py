"""What every SQL store does: units go to the writer, queries to the readers, notices out after the commit."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeVar

from overnight.domain.event import Recorded
from overnight.errors import Unavailable
from overnight.ports.notifier import Notice, Notifier
from overnight.ports.unit_of_work import Unit
from overnight.stores.sql.ground import Ground
from overnight.stores.sql.readers import Readers
from overnight.stores.sql.writer import Job, Writer

T = TypeVar("T")


class SqlStore:
    """See `ports.unit_of_work.Store`. Subclasses say what to stand on, and how to begin and to end."""

    def __init__(self, ground: Ground, notifier: Notifier) -> None:
        self._notifier = notifier
        self._writer = Writer(ground, self._release_soon)
        self._readers = Readers(ground)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """See the port. Raises StartRefused."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._prepare)

    async def close(self) -> None:
        """See the port."""
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._readers.close)
        self._let_go()
        self._loop = None
        await asyncio.sleep(0)  # lets the last results, which are on their way to this loop, arrive

    def _prepare(self) -> None:
        """On a thread: everything that must be there before the writer starts, and its start."""
        self._writer.start()

    def _let_go(self) -> None:
        """Give up what was held for as long as the store was open."""

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """See the port."""
        loop = self._running()
        future: asyncio.Future[T] = loop.create_future()
        self._writer.submit(_FutureJob(unit, future), urgent=urgent)
        return await future

    async def read(self, query: Unit[T]) -> T:
        """See the port."""
        try:
            found = self._running().run_in_executor(self._readers.pool, self._readers.run, query)
        except RuntimeError:  # the pool takes nothing any more
            raise Unavailable("the store is closed") from None
        return await found

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise Unavailable("the store is not open")
        return self._loop

    def _release_soon(self, batch: list[Job]) -> None:
        """On the writer's thread: one call of the loop for the whole commit."""
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._running().call_soon_threadsafe(self._release, batch)

    def _release(self, batch: list[Job]) -> None:
        try:
            self._notifier.publish(merged(batch))
        finally:  # what is stored is stored, whatever becomes of the notices
            for job in batch:
                if isinstance(job, _FutureJob):
                    job.settle()


class _FutureJob(Job):
    """A job whose caller waits on the loop."""

    __slots__ = ("_future",)

    def __init__(self, unit: Unit[Any], future: asyncio.Future[Any]) -> None:
        super().__init__(unit, future.cancelled)
        self._future = future

    def settle(self) -> None:
        """On the loop: give the caller the result, unless it has gone."""
        if self._future.done():
            return
        if isinstance(self.error, StopIteration):  # which a future would refuse to carry
            self._future.set_exception(RuntimeError("a unit raised StopIteration"))
        elif self.error is not None:
            self._future.set_exception(self.error)
        else:
            self._future.set_result(self.result)


def merged(batch: list[Job]) -> list[Notice]:
    """The notices of one commit: one for each topic, the events of a stream in order."""
    topics: dict[str, list[Recorded]] = {}
    for job in batch:
        for notice in job.notices:
            topics.setdefault(notice.topic, []).extend(notice.events)
    return [Notice(topic=topic, events=tuple(events)) for topic, events in topics.items()]
