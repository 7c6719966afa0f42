"""Waiting has an end: when nobody decides in time, an approval's default decision is applied."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.approval import Approval, Decision
from overnight.domain.request import SYSTEM
from overnight.domain.states import State
from overnight.engine import questions
from overnight.errors import InvalidTransition, NotFound
from overnight.ports.unit_of_work import Transaction, UnitOfWork

BATCH: Final = 100

log = structlog.get_logger(__name__)


class Expirer:
    """Decides what nobody has decided."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    async def once(self) -> int:
        """Apply the default to everything overdue; how many approvals."""
        now = self._clock.wall_ms()
        overdue = await self._uow.read(lambda tx: tx.approvals.overdue(now, BATCH))
        ended = sum([await self._end(found, now) for found in overdue])
        if ended:
            log.info("approvals.expired", count=ended)
        return ended

    async def _end(self, found: Approval, now_ms: int) -> bool:
        """One that cannot be decided may not keep the others from it."""
        try:
            return await self._uow.write(partial(_expire, found=found, now_ms=now_ms))
        except (InvalidTransition, NotFound) as error:
            log.warning("approval.not_expired", approval=found.id, error=str(error))
            return False


def _expire(tx: Transaction, *, found: Approval, now_ms: int) -> bool:
    run = tx.runs.lock(found.run_pk)
    approval = tx.approvals.get(found.id, None)
    option = approval.option(approval.default_option)
    if approval.state != "pending" or option is None or run.state is State.CANCELLING:
        return False
    ruling = questions.Ruling(
        decision=Decision(option=option.id, by=SYSTEM.name), option=option, expired=True
    )
    questions.decide(tx, run, approval, ruling, SYSTEM, now_ms)
    return True
