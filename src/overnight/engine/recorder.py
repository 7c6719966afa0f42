"""The only writer of a run's progress. Every write carries the hold's token and an unexpired lease, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.run import Run
from overnight.domain.values import Failure
from overnight.engine.hold import Hold
from overnight.errors import LeaseLost
from overnight.ports.meter import Meter
from overnight.ports.unit_of_work import Transaction, UnitOfWork

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Recorder:
    """Writes for one hold."""

    def __init__(
        self, *, uow: UnitOfWork, clock: Clock, hold: Hold, redactor: Redactor, meter: Meter
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._hold = hold
        self._meter = meter
        self.redactor = redactor

    async def write(self, unit: Callable[[Transaction, Run, int], T]) -> T:
        """Run `unit` with the run as it is now and the wall time, provided that the hold is still good.

        Raises LeaseLost when it is not: the caller stops touching the run. `unit` may be run again.
        """

        def fenced(tx: Transaction) -> T:
            return unit(tx, tx.leases.check(self._hold.lease), self._clock.wall_ms())

        asked = self._clock.boot()
        try:
            written = await self._uow.write(fenced)
        except LeaseLost as lost:
            if not self._hold.over:
                log.warning("run.lease_lost", token=self._hold.lease.token, reason=lost.detail)
            raise
        self._meter.written(self._clock.boot() - asked)
        return written

    def redacted(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts without secrets: nothing else may be appended."""
        return [replace(draft, data=self.redactor.json(dict(draft.data))) for draft in drafts]

    def hidden(self, text: str) -> str:
        """`text` without secrets."""
        return self.redactor.text(text)

    def hidden_failure(self, failure: Failure) -> Failure:
        """The failure with a message that shows no secret."""
        return replace(failure, message=self.redactor.text(failure.message))
