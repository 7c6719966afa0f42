"""Sessions that nobody comes back to expire: their history stays, the homes of their agents go."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.request import SYSTEM
from overnight.domain.session import Session, SessionState
from overnight.engine.folders import Folders, remove_folders
from overnight.engine.policy import SessionPolicy
from overnight.engine.session_moves import move
from overnight.errors import NotFound
from overnight.ports.unit_of_work import Transaction, UnitOfWork

BATCH: Final = 100
EVERY_S: Final = 60.0
_ENDING: Final[tuple[SessionState, ...]] = ("active", "suspended")

log = structlog.get_logger(__name__)


class SessionExpirer:
    """Ends sessions that were left alone for too long; one with a live run never is."""

    def __init__(self, uow: UnitOfWork, clock: Clock, policy: SessionPolicy, folders: Folders) -> None:
        self._uow = uow
        self._clock = clock
        self._policy = policy
        self._folders = folders

    async def once(self) -> int:
        """Let everything expire that is due; how many sessions."""
        expired = 0
        for state in _ENDING:
            expired += await self._expire(state)
        if expired:
            log.info("sessions.expired", count=expired)
        return expired

    async def _expire(self, state: SessionState) -> int:
        patience = self._policy.patience_ms(state)
        if patience is None:
            return 0
        now = self._clock.wall_ms()
        due = await self._uow.read(lambda tx: tx.sessions.untouched(state, now - patience, BATCH))
        ended = 0
        for pk in due:
            unit = partial(_expire, pk=pk, state=state, before=now - patience, now_ms=now)
            session = await self._uow.write(unit)
            if session is not None:
                ended += 1
                await asyncio.to_thread(remove_folders, [self._folders.homes(session.id)])
        return ended


def _expire(tx: Transaction, *, pk: int, state: SessionState, before: int, now_ms: int) -> Session | None:
    """Unless it was used, moved, removed or given a run since it was found."""
    try:
        session = tx.sessions.lock(pk)
    except NotFound:
        return None
    if session.state != state or session.updated_at >= before or tx.sessions.live_runs(pk):
        return None
    return move(tx, session, "expire", SYSTEM, now_ms)
