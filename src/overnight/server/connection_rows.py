"""The database's rows of this server's connections: written beside the requests, in batches, best effort.

What is true is in memory; the rows tell other servers. Whenever the two may differ (a write was refused, a heartbeat
met another number of rows), all of this server's rows are written anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.connection import Connection
from overnight.errors import NotFound, OvernightError
from overnight.ids import SessionId, WorkerId
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.server.connected import Connected

BATCH: Final = 200
"""Rows of one unit: about two milliseconds."""

log = structlog.get_logger(__name__)


class ConnectionRows:
    """Keeps the rows of one server. Nothing here raises: what the database refuses is made good later."""

    def __init__(self, uow: UnitOfWork, clock: Clock, server: WorkerId) -> None:
        self._uow = uow
        self._clock = clock
        self._server = server
        self._new: dict[Connected, None] = {}
        self._gone: list[str] = []
        self._stored = 0
        self._anew = False
        self._writing = asyncio.Lock()

    def added(self, connected: Connected) -> None:
        """To be written by the next `flush`."""
        self._new[connected] = None

    def removed(self, connected: Connected) -> None:
        """To be removed by the next `flush`; one that was never written leaves no trace."""
        if connected in self._new:
            del self._new[connected]
        elif not self._anew:
            self._gone.append(connected.id)

    async def flush(self, present: Iterable[Connected]) -> None:
        """Bring the rows up to date; `present` are all that are connected now."""
        async with self._writing:
            anew = self._anew
            coming, going = tuple(present if anew else self._new), self._gone
            self._new, self._gone, self._anew = {}, [], False
            try:
                await self._remove(going, all_of_them=anew)
                for start in range(0, len(coming), BATCH):
                    await self._add(coming[start : start + BATCH])
            except OvernightError as error:
                self._anew = True
                log.warning("connections.not_written", code=error.code, error=str(error))

    async def beat(self) -> bool:
        """Say that all of them live, in one write (none where there is nobody); False: the rows must be flushed."""
        if not self._stored:
            return not self._anew
        now = self._clock.wall_ms()
        async with self._writing:
            try:
                met = await self._uow.write(lambda tx: tx.connections.beat(self._server, now))
            except OvernightError as error:
                log.warning("connections.no_heartbeat", code=error.code, error=str(error))
                return True
            self._anew = self._anew or met != self._stored
        return not self._anew

    async def forget(self) -> None:
        """Remove all rows of this server, which ends."""
        try:
            await self._uow.write(lambda tx: tx.connections.forget(self._server))
        except OvernightError as error:
            # The next server removes them when it starts.
            log.warning("connections.not_forgotten", code=error.code, error=str(error))

    async def touch(self, sessions: Iterable[SessionId]) -> None:
        """Their last follower here has gone: they were in use until now."""
        now = self._clock.wall_ms()
        for session_id in sessions:
            try:
                await self._uow.write(partial(_touch, session_id=session_id, now_ms=now))
            except OvernightError as error:
                log.warning("session.not_touched", session=session_id, code=error.code)

    async def _remove(self, going: Sequence[str], *, all_of_them: bool) -> None:
        if all_of_them:
            await self._uow.write(lambda tx: tx.connections.forget(self._server))
            self._stored = 0
        elif going:
            await self._uow.write(lambda tx: tx.connections.remove(going))
            self._stored -= len(going)

    async def _add(self, coming: Sequence[Connected]) -> None:
        now = self._clock.wall_ms()
        rows = [connected.row(self._server, now) for connected in coming]
        await self._uow.write(partial(_store, rows=rows))
        self._stored += len(rows)


def _store(tx: Transaction, *, rows: Sequence[Connection]) -> None:
    for row in rows:
        tx.connections.add(row)


def _touch(tx: Transaction, *, session_id: SessionId, now_ms: int) -> None:
    with contextlib.suppress(NotFound):
        tx.sessions.touch(tx.sessions.get(session_id, None).pk, now_ms)
