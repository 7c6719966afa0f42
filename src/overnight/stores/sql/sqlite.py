"""The unit of work on one SQLite file."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from overnight.clock import Clock
from overnight.domain.event import Recorded
from overnight.errors import Unavailable
from overnight.ports.notifier import Notice, Notifier
from overnight.ports.unit_of_work import Unit
from overnight.stores.sql import migrate, outcomes
from overnight.stores.sql.connections import Connections, Synchronous
from overnight.stores.sql.lock import DataLock
from overnight.stores.sql.readers import Readers
from overnight.stores.sql.statements import Link
from overnight.stores.sql.transaction import SqlTransaction
from overnight.stores.sql.writer import Job, Writer

T = TypeVar("T")


class SqliteStore:
    """See `ports.unit_of_work.UnitOfWork`. Everything lies in `path` and SQLite's two files beside it.

    `start` before use, on the loop that will use it; `close` after. `lease_check_clock` is the boot-time clock by
    which leases are trusted, where that is not `clock`. `synchronous="NORMAL"` is many times faster and may lose the
    last moments in a power cut (never in a crash of the program). `spare_bytes` of disk are taken in advance, so that
    a full disk does not stop what must go on; 0 takes nothing in advance.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        notifier: Notifier,
        *,
        lease_check_clock: Clock | None = None,
        synchronous: Synchronous = "FULL",
        spare_bytes: int = 0,
    ) -> None:
        self._path = path
        self._clock = clock
        self._lease_clock = lease_check_clock or clock
        self._notifier = notifier
        self._spare_bytes = spare_bytes
        self._lock = DataLock(path.parent, clock)
        self._connections = Connections(path, synchronous)
        self._writer = Writer(self._open_writing, self._release_soon, path.parent)
        self._readers = Readers(self._open_reading)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Take the data directory for this process, bring the schema up to date and begin to work.

        Raises DataInUse when another server holds it, UnsafeDatabase when the library or the file cannot be trusted.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            try:
                self._connections.make_private()
                migrate.prepare(self._path, self._connections, self._clock)
                self._writer.start()
            except self._connections.errors as error:
                raise outcomes.at_start(error, self._path) from error
        except BaseException:
            self._lock.release()
            raise

    async def close(self) -> None:
        """Carry out what waits, then let go of the data directory; idempotent."""
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._readers.close)
        self._lock.release()
        self._loop = None
        await asyncio.sleep(0)  # lets the last results, which are on their way to this loop, arrive

    def free_bytes(self) -> int:
        """What the file system of the database has left; new work is refused below the operator's reserve."""
        return outcomes.free_bytes(self._path.parent)

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """See the port."""
        loop = self._running()
        future: asyncio.Future[T] = loop.create_future()
        self._writer.submit(_FutureJob(unit, future), urgent=urgent)
        return await future

    async def read(self, query: Unit[T]) -> T:
        """See the port."""
        return await self._running().run_in_executor(self._readers.pool, self._readers.run, query)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise Unavailable("the store is not open")
        return self._loop

    def _open_writing(self) -> tuple[Link, SqlTransaction]:
        link = self._connections.open(writing=True)
        if self._spare_bytes:
            self._connections.keep_room(link, self._spare_bytes)
        return link, SqlTransaction(link, self._clock, self._lease_clock)

    def _open_reading(self) -> tuple[Link, SqlTransaction]:
        link = self._connections.open(writing=False)
        return link, SqlTransaction(link, self._clock, self._lease_clock)

    def _release_soon(self, batch: list[Job]) -> None:
        """On the writer's thread: one call of the loop for the whole commit."""
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._running().call_soon_threadsafe(self._release, batch)

    def _release(self, batch: list[Job]) -> None:
        self._notifier.publish(merged(batch))
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
