"""Rows of connections whose server fell silent: it was killed, and nobody has taken its data over."""

from __future__ import annotations

from typing import Final

import structlog

from overnight.clock import Clock
from overnight.ports.unit_of_work import UnitOfWork

STALE_S: Final = 300.0

log = structlog.get_logger(__name__)


class StaleConnections:
    """Removes them."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    async def once(self) -> int:
        """Remove all without a heartbeat for five minutes; how many."""
        before = self._clock.wall_ms() - round(STALE_S * 1000)
        known = await self._uow.read(lambda tx: tx.connections.all(None))
        if all(connection.heartbeat_at >= before for connection in known):
            return 0
        removed = await self._uow.write(lambda tx: tx.connections.stale(before))
        log.info("connections.stale", count=removed)
        return removed
