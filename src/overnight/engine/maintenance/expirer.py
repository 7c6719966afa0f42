"""Waiting has an end: when nobody decides in time, the default decision is applied."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.states import Input, State
from overnight.domain.values import Completion
from overnight.engine import moves
from overnight.ports.unit_of_work import Transaction, UnitOfWork

BATCH: Final = 100

log = structlog.get_logger(__name__)


class Expirer:
    """Ends runs whose question nobody has answered. The default decision of a spent budget is to finish."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    async def once(self) -> int:
        """Apply the default to everything overdue; how many runs that ended."""
        now = self._clock.wall_ms()
        overdue = await self._uow.read(lambda tx: tx.installation.overdue(now, BATCH))
        ended = sum([await self._uow.write(partial(_finish, pk=pk, now_ms=now)) for pk in overdue])
        if ended:
            log.info("runs.expired", count=ended)
        return ended


def _finish(tx: Transaction, *, pk: int, now_ms: int) -> bool:
    run = tx.runs.lock(pk)
    if run.state is not State.WAITING or run.waiting_until is None or run.waiting_until > now_ms:
        return False
    data = {"kind": run.waiting_for.kind if run.waiting_for else None, "default_option": "finish"}
    moves.note(tx, run, now_ms, Draft(type="approval.expired", data=data))
    moves.complete(tx, run, Completion(by="decision"), now_ms, input=Input.FINISH)
    return True
