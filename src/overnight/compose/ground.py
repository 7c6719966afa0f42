"""What everything else stands on: the database and what carries notices, as the settings name them.

Drivers are loaded only where they are used, so that an installation on SQLite pays nothing for the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from overnight.clock import Clock
from overnight.compose.hosts import worker_lock
from overnight.config.paths import unmakable
from overnight.config.settings import Settings
from overnight.engine.folders import Folders
from overnight.errors import DataInUse
from overnight.ports.meter import RelayMeter
from overnight.ports.notifier import Notifier
from overnight.ports.unit_of_work import UnitOfWork
from overnight.stores.sql import outcomes
from overnight.stores.sql.lock import DataLock

MOST_SPARE: Final = 16 * 1024 * 1024
"""Bytes of the reserve that SQLite takes in advance, to go on with when the disk is full: an eighth, or this."""


class Carrier(Notifier, Protocol):
    """A notifier that reaches other processes."""

    async def start(self) -> None:
        """Begin; what carries the notices may be down then and later."""
        ...

    async def close(self) -> None:
        """Stop."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """An open database and its notices."""

    uow: UnitOfWork
    notifier: Notifier
    clock: Clock
    free_bytes: Callable[[], int]
    """What the disk has left on which new work would be written."""


def ground(
    settings: Settings, clock: Clock, *, working: bool, meter: RelayMeter | None = None
) -> AbstractAsyncContextManager[Ground]:
    """Open while the block runs. `working`: this process carries out the runs of its host, as the only one. `meter`
    counts what goes to other processes.

    Raises DataInUse, UnsafeDatabase, StartRefused, ConfigInvalid, Unavailable.
    """
    make_folders(settings.data_dir)
    if settings.postgres:
        return _shared(settings, clock, working=working, meter=meter)
    return _alone(settings, clock)


def make_folders(data_dir: Path) -> None:
    """The data directory and what belongs into it. Raises ConfigInvalid when they cannot be made."""
    try:
        Folders.make(data_dir)
    except OSError as error:
        raise unmakable(data_dir, error) from None


@asynccontextmanager
async def _alone(settings: Settings, clock: Clock) -> AsyncIterator[Ground]:
    from overnight.stores.inproc.notifier import InprocNotifier  # noqa: PLC0415 -- see above
    from overnight.stores.sql.sqlite import SqliteStore  # noqa: PLC0415

    notifier = InprocNotifier()
    store = SqliteStore(
        settings.database, clock, notifier, synchronous=settings.synchronous,
        spare_bytes=min(MOST_SPARE, settings.storage.reserve_bytes // 8),
    )  # fmt: skip
    await store.start()
    try:
        yield Ground(uow=store, notifier=notifier, clock=clock, free_bytes=store.free_bytes)
    finally:
        await store.close()


@asynccontextmanager
async def _shared(
    settings: Settings, clock: Clock, *, working: bool, meter: RelayMeter | None
) -> AsyncIterator[Ground]:
    from overnight.stores.sql.postgres import PostgresStore  # noqa: PLC0415 -- see above

    lock = _locked(settings, clock) if working else None
    try:
        notifier = _carrier(settings, meter)
        store = PostgresStore(settings.database_url, clock, notifier)
        await store.start()
        try:
            await notifier.start()
            free_bytes = partial(outcomes.free_bytes, settings.data_dir)
            yield Ground(uow=store, notifier=notifier, clock=clock, free_bytes=free_bytes)
        finally:
            await store.close()  # first: what it still carries out is to be told
            await notifier.close()
    finally:
        if lock is not None:
            lock.release()


def _locked(settings: Settings, clock: Clock) -> DataLock:
    lock = worker_lock(settings, clock)
    try:
        lock.acquire()
    except DataInUse as error:
        mend = f"{error.mend or 'end it first'}; or serve only: overnight up --no-worker"
        raise DataInUse(error.detail, mend=mend, extra=error.extra) from None
    return lock


def _carrier(settings: Settings, meter: RelayMeter | None) -> Carrier:
    if settings.redis_url is not None:
        from overnight.stores.redis.notifier import RedisNotifier  # noqa: PLC0415 -- see above

        try:
            return RedisNotifier(
                settings.redis_url,
                meter=meter,
                stream_length=settings.redis_stream_length,
                ttl_s=settings.redis_ttl_s,
            )
        except ValueError as error:  # the library alone knows what may stand behind the question mark
            raise settings.sources.refuse(
                "redis_url", f"cannot be used: {error}", mend="it looks like redis://:PASSWORD@HOST:6379/0"
            ) from None
    from overnight.stores.sql.announcer import PostgresNotifier  # noqa: PLC0415

    return PostgresNotifier(settings.database_url, meter=meter)
