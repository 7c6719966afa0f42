"""The worker says that it lives."""

from __future__ import annotations

from overnight.engine.workshop import Workshop


class Heartbeat:
    """Writes when this worker was last seen."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def once(self) -> None:
        """Beat."""
        now = self._shop.clock.wall_ms()
        await self._shop.uow.write(lambda tx: tx.workers.beat(self._shop.worker.pk, now))
