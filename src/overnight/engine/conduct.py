"""How a worker fares: one that keeps failing before anything can begin is put into quarantine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import structlog

from overnight.clock import Clock
from overnight.domain.worker import Worker
from overnight.errors import OvernightError
from overnight.ports.unit_of_work import Transaction, UnitOfWork

T = TypeVar("T")

RELEASE: Final = "overnight workers release"
"""What ends a quarantine."""

log = structlog.get_logger(__name__)


class Conduct(Protocol):
    """Told by those who carry out runs."""

    async def stumbled(self, why: str) -> None:
        """A turn could not even begin, or leases were lost."""
        ...

    async def went_well(self) -> None:
        """A turn is under way."""
        ...


class Unjudged:
    """Of a worker that nobody judges."""

    async def stumbled(self, why: str) -> None:
        """See `Conduct`."""

    async def went_well(self) -> None:
        """See `Conduct`."""


class Judged:
    """Keeps the count in the database, so that a restart does not begin a new one. `after`: how many in a row."""

    def __init__(self, uow: UnitOfWork, clock: Clock, worker: Worker, *, after: int) -> None:
        self._uow = uow
        self._clock = clock
        self._worker = worker
        self._after = after
        self._clean = False
        """Whether nothing is counted, as far as this process knows."""

    async def stumbled(self, why: str) -> None:
        """See `Conduct`."""
        self._clean = False
        pk, now = self._worker.pk, self._clock.wall_ms()
        if await self._write(lambda tx: tx.workers.fault(pk, why, now, quarantine_after=self._after)):
            log.error("worker.quarantined", worker=self._worker.id, why=why, mend=RELEASE)

    async def went_well(self) -> None:
        """See `Conduct`. Costs nothing while nothing goes wrong."""
        if not self._clean:
            self._clean = True
            await self._write(lambda tx: tx.workers.went_well(self._worker.pk))

    async def _write(self, unit: Callable[[Transaction], T]) -> T | None:
        """What cannot be counted is no reason to let go of a run."""
        try:
            return await self._uow.write(unit)
        except OvernightError as error:
            log.warning("worker.not_judged", code=error.code, error=str(error))
            return None
