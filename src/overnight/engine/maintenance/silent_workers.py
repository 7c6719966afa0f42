"""Workers and servers that fell silent are gone: killed, or cut off, and nobody of their host has said so."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from overnight.domain.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.errors import NotFound
from overnight.ports.unit_of_work import Transaction

log = structlog.get_logger(__name__)


class SilentWorkers:
    """Judges by our own clock how long a heartbeat has not moved: the clocks of hosts need not agree."""

    def __init__(self, shop: Workshop, *, stale_s: float) -> None:
        self._shop = shop
        self._stale_s = stale_s
        self._seen: dict[int, tuple[int, float]] = {}

    async def once(self) -> int:
        """Mark those that are gone, with their connections; how many. None whose leases are still renewed."""
        boot = self._shop.clock.boot()
        found = await self._shop.uow.read(lambda tx: tx.workers.all())
        others = [worker for worker in found if worker.state != "gone" and worker.pk != self._shop.worker.pk]
        self._seen = {worker.pk: self._sighting(worker, boot) for worker in others}
        silent = [worker for worker in others if boot - self._seen[worker.pk][1] >= self._stale_s]
        if not silent:
            return 0
        gone = await self._shop.uow.write(lambda tx: self._part(tx, silent))
        if gone:
            log.info("workers.gone", count=gone)
        return gone

    def _sighting(self, worker: Worker, boot: float) -> tuple[int, float]:
        seen_at, since = self._seen.get(worker.pk, (worker.seen_at, boot))
        return (seen_at, since) if seen_at == worker.seen_at else (worker.seen_at, boot)

    def _part(self, tx: Transaction, silent: Sequence[Worker]) -> int:
        now = self._shop.clock.wall_ms()
        living = {found.worker_pk for found in tx.leases.standing() if not found.expired}
        seen = {worker.pk: worker.seen_at for worker in tx.workers.all()}
        gone = 0
        for worker in silent:
            if worker.pk in living or seen.get(worker.pk) != worker.seen_at:
                continue
            try:
                tx.workers.set_state(worker.id, "gone", now)
            except NotFound:
                continue
            tx.connections.forget(worker.id)
            gone += 1
        return gone
