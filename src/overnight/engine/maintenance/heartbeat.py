"""The worker says that it lives."""

from __future__ import annotations

from overnight.engine.workshop import Workshop
from overnight.ports.unit_of_work import Transaction


class Heartbeat:
    """Writes when this worker was last seen. Others may have taken it for gone, while it stood still: it is back."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def once(self) -> None:
        """Beat."""
        await self._shop.uow.write(self._beat)

    def _beat(self, tx: Transaction) -> None:
        me, now = self._shop.worker, self._shop.clock.wall_ms()
        tx.workers.beat(me.pk, now)
        if any(worker.pk == me.pk and worker.state == "gone" for worker in tx.workers.all()):
            tx.workers.set_state(me.id, "active", now)
