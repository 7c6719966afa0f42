"""Old runs go: after their time, or the oldest first when the store grows too big. A run that is not final stays.

So do the rows of workers that were gone long ago.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.run import Run
from overnight.engine.folders import Folders, remove_folders
from overnight.engine.hosts import leave_behind
from overnight.engine.policy import Storage
from overnight.engine.session_moves import session_is_gone
from overnight.errors import NotFound
from overnight.ids import HostId
from overnight.ports.unit_of_work import Transaction, UnitOfWork

BATCH: Final = 20
"""Runs looked up at once; each is removed in a transaction of its own."""
MOST: Final = 1000
"""Runs removed in one go; the rest waits for the next time."""
FULL: Final = 0.8
"""The part of `max_bytes` from which the oldest runs go."""
SLICE: Final = 5_000
"""Events removed in one transaction, so that no unit takes long."""
FORGOTTEN_DAYS: Final = 30
"""Of workers that are gone. One that comes back later must be started anew."""
DAY_MS: Final = 86_400_000

log = structlog.get_logger(__name__)


class Pruner:
    """Removes final runs with their events and folders. `host_id`: ours, where others may have the folders."""

    def __init__(
        self, uow: UnitOfWork, clock: Clock, storage: Storage, host_id: HostId | None = None
    ) -> None:
        self._uow = uow
        self._host_id = host_id
        self._clock = clock
        self._storage = storage
        self._folders = Folders(storage.data_dir)

    async def once(self) -> int:
        """Remove what is due; how many runs."""
        removed = await self._remove_ended_before(
            self._clock.wall_ms() - round(self._storage.retention_days * DAY_MS), by_size=False
        )
        if self._storage.max_bytes is not None:
            removed += await self._remove_ended_before(self._clock.wall_ms(), by_size=True)
        away_since = self._clock.wall_ms() - FORGOTTEN_DAYS * DAY_MS
        await self._uow.write(lambda tx: tx.workers.forget(away_since, MOST))
        return removed

    async def _remove_ended_before(self, moment: int, *, by_size: bool) -> int:
        removed = 0
        while removed < MOST and (not by_size or await self._too_big()):
            old = await self._uow.read(
                lambda tx: tx.installation.expired_runs(moment, 1 if by_size else BATCH)
            )
            gone = sum([await self._remove(pk) for pk in old])
            if not gone:
                break
            removed += gone
        return removed

    async def _too_big(self) -> bool:
        if self._storage.max_bytes is None:
            return False
        size = await self._uow.read(lambda tx: tx.installation.size_bytes())
        return size >= FULL * self._storage.max_bytes

    async def _remove(self, pk: int) -> bool:
        try:
            last = await self._uow.read(lambda tx: tx.events.mark(pk).last)
            while await self._uow.write(lambda tx: tx.events.trim(pk, last, SLICE)):
                pass
            run, gone = await self._uow.write(lambda tx: self._delete(tx, pk))
        except NotFound:  # another server was faster
            return False
        await asyncio.to_thread(remove_folders, gone)
        log.info("run.pruned", run=run.id)
        return True

    def _delete(self, tx: Transaction, pk: int) -> tuple[Run, list[Path]]:
        """The run that was removed, and its folders. If its session went with it nobody needs the agents' homes."""
        run = tx.runs.lock(pk)
        if not run.final:
            raise NotFound(f"{run.id} goes on")
        tx.runs.delete(pk)
        gone = [self._folders.run(run.id)]
        if session_is_gone(tx, run.session_id):
            gone += self._folders.of_session(run.session_id)
        leave_behind(tx, run, self._host_id or run.host_id, self._folders.named(gone))
        return run, gone
