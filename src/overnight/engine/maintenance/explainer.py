"""Runs that nobody claims say why: nothing offers what they ask for, or a limit of their backend is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.queue_limits import NO_LIMITS, QueueLimits
from overnight.domain.values import WaitingFor
from overnight.domain.worker import Lane, Worker, why_unserved
from overnight.ports.unit_of_work import Transaction, UnitOfWork

EVERY_S: Final = 20.0
MOST: Final = 200
"""Runs of a lane that say so: those that would be next."""

log = structlog.get_logger(__name__)


class Explainer:
    """Writes only what has changed, so that a queue which stands still costs nothing but the looking."""

    def __init__(
        self, uow: UnitOfWork, clock: Clock, *, stale_s: float, limits: QueueLimits = NO_LIMITS
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._stale_ms = round(stale_s * 1000)
        self._limits = limits
        self._told: dict[int, WaitingFor] = {}
        self._begun = False

    async def once(self) -> int:
        """Look once; how many runs say something else than before."""
        now = self._clock.wall_ms()
        lanes, workers, full = await self._uow.read(self._look)
        live = tuple(one for one in workers if one.state != "gone" and now - one.seen_at < self._stale_ms)
        wanted = {lane.pk: reason for lane in lanes if (reason := waiting(lane, live, full)) is not None}
        before = self._told.keys() if self._begun else {lane.pk for lane in lanes}
        changed = 0
        for lane in lanes:
            if lane.pk in wanted or lane.pk in before:
                changed += await self._tell(lane, wanted.get(lane.pk))
        self._told, self._begun = wanted, True
        return changed

    def _look(self, tx: Transaction) -> tuple[tuple[Lane, ...], tuple[Worker, ...], Mapping[str, str]]:
        return tx.leases.lanes(), tx.workers.all(), tx.leases.full(self._limits)

    async def _tell(self, lane: Lane, reason: WaitingFor | None) -> int:
        if not await self._uow.read(lambda tx: tx.leases.unexplained(lane.pk, reason, MOST)):
            return 0
        told = await self._uow.write(lambda tx: tx.leases.explain(lane.pk, reason, MOST))
        if reason is not None and self._told.get(lane.pk) != reason:
            log.warning("queue.unserved", backend=lane.backend, place=lane.place, why=reason.detail)
        return told


def waiting(lane: Lane, live: tuple[Worker, ...], full: Mapping[str, str]) -> WaitingFor | None:
    """What the runs of a lane wait for, where it is more than a free slot. `full`: backends without room, and why."""
    why = why_unserved(lane, live)
    if why is not None:
        return WaitingFor(
            kind="workspace" if why.startswith(("host ", "shared root ")) else "backend", detail=why
        )
    if lane.backend in full:
        return WaitingFor(kind="backend", detail=full[lane.backend])
    return None
