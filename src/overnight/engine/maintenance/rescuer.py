"""Runs whose holder has gone silent are taken up again: here where their host is ours, else given back."""

from __future__ import annotations

import structlog

from overnight.domain.lease import Sighting
from overnight.domain.run import Run
from overnight.domain.states import State, TurnState
from overnight.engine import moves
from overnight.engine.boundary import cancelled
from overnight.engine.next_step import TurnResult
from overnight.engine.settlement import Closing, Rules, settle
from overnight.engine.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.errors import LeaseLost
from overnight.ports.tables import Held
from overnight.ports.unit_of_work import Transaction

log = structlog.get_logger(__name__)


class Rescuer:
    """Watches held runs. A lease counts as lost when nothing of it has moved for one lease by our own clock."""

    def __init__(self, shop: Workshop, worker: Worker) -> None:
        self._shop = shop
        self._worker = worker
        self._seen: dict[int, Sighting] = {}

    async def once(self) -> int:
        """Look once; how many runs were rescued."""
        boot = self._shop.clock.boot()
        held = await self._shop.uow.read(lambda tx: tx.leases.held())
        others = [found for found in held if not self._worker.holds(found.run.pk)]
        self._seen = {found.run.pk: self._sighting(found, boot) for found in others}
        stale = [f for f in others if self._seen[f.run.pk].stale(boot, self._shop.timing.lease_s)]
        return sum([await self._rescue(found.run) for found in stale])

    def _sighting(self, found: Held, boot: float) -> Sighting:
        token, renewal = found.run.token, found.renewal
        seen = self._seen.get(found.run.pk)
        return seen.seen(token, renewal, boot) if seen else Sighting(token=token, renewal=renewal, since=boot)

    async def _rescue(self, run: Run) -> bool:
        log.info("run.rescued", run=run.id, token=run.token, worker=run.worker)
        if run.host_id == self._shop.worker.host_id:
            return await self._worker.adopt(run, "worker_gone")
        now = self._shop.clock.wall_ms()
        try:
            await self._shop.uow.write(lambda tx: self._give_back(tx, run, now))
        except LeaseLost:
            return False
        return True

    def _give_back(self, tx: Transaction, run: Run, now_ms: int) -> None:
        """Its host does not answer, and the keeper's own deadline has passed by now: the turn is abandoned."""
        taken = tx.leases.take(run.pk, self._shop.worker.pk, run.token)
        if taken.state is State.CANCELLING:
            cancelled(tx, taken, now_ms, None)
            return
        turn = tx.turns.last(taken.pk)
        if turn is not None and turn.state is TurnState.STARTED:
            closing = Closing(result=TurnResult(abandoned=True), why_abandoned="its host does not answer")
            rules = Rules(policy=self._shop.policy, timing=self._shop.timing)
            if settle(tx, taken, now_ms, closing, None, rules) is None:
                return
            taken = tx.runs.lock(run.pk)
        moves.handed_back(tx, taken, "worker_gone", now_ms)
        tx.notify("queue")
