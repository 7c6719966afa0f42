"""Runs whose holder has gone silent are taken up again: here where their host is ours, else they are given back.

A run that only its own host can carry out waits for that host, and says so; one that is being cancelled is over, for
its keeper's own deadline has passed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from overnight.domain.lease import Sighting
from overnight.domain.placement import host_of
from overnight.domain.run import Run, Turn
from overnight.domain.states import State, TurnState
from overnight.domain.values import WaitingFor
from overnight.engine import moves
from overnight.engine.boundary import cancelled
from overnight.engine.hosts import Host, Rouse, folder_here, name_of, recall
from overnight.engine.next_step import TurnResult
from overnight.engine.settlement import Closing, Rules, recovered, settle
from overnight.engine.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.errors import LeaseLost, OvernightError
from overnight.ports.tables import Standing
from overnight.ports.unit_of_work import Transaction

SILENT: Final = "its host does not answer"
REASON: Final = "worker_gone"

log = structlog.get_logger(__name__)


class Rescuer:
    """Watches held runs. A lease counts as lost when nothing of it has moved for one lease by our own clock, and the
    database says that it has run out. `rouse` finds out about keepers of other hosts that are on this very machine.
    Without a `worker` it leaves the runs of its own host to whoever works there.
    """

    def __init__(self, shop: Workshop, worker: Worker | None, *, rouse: Rouse = lambda _: False) -> None:
        self._shop = shop
        self._worker = worker
        self._rouse = rouse
        self._seen: dict[int, Sighting] = {}

    async def once(self) -> int:
        """Look once; how many runs were rescued."""
        boot = self._shop.clock.boot()
        standing = await self._shop.uow.read(lambda tx: tx.leases.standing())
        mine = self._worker
        others = [found for found in standing if mine is None or not mine.holds(found.run_pk)]
        self._seen = {found.run_pk: self._sighting(found, boot) for found in others}
        stale = {found.run_pk: found.token for found in others if self._is_lost(found, boot)}
        if not stale:
            return 0
        held = await self._shop.uow.read(lambda tx: tx.leases.held())
        lost = [found.run for found in held if stale.get(found.run.pk) == found.run.token]
        # Side by side, so that the store commits them together: the last of many must not wait for all the others.
        return sum(await asyncio.gather(*(self._try(run) for run in lost)))

    def _sighting(self, found: Standing, boot: float) -> Sighting:
        token, renewal = found.token, found.renewal
        seen = self._seen.get(found.run_pk)
        return seen.seen(token, renewal, boot) if seen else Sighting(token=token, renewal=renewal, since=boot)

    def _is_lost(self, found: Standing, boot: float) -> bool:
        return found.expired and self._seen[found.run_pk].stale(boot, self._shop.timing.lease_s)

    async def _try(self, run: Run) -> bool:
        """One that cannot be rescued may not keep the others from it."""
        try:
            return await self._rescue(run)
        except OvernightError as error:
            log.warning("run.not_rescued", run=run.id, code=error.code, error=str(error))
            return False

    async def _rescue(self, run: Run) -> bool:
        if run.host_id == self._shop.worker.host_id:
            if self._worker is None:
                return False
            log.info("run.rescued", run=run.id, token=run.token, worker=run.worker)
            return await self._worker.adopt(run, REASON)
        if host_of(run.place) is not None and run.state is not State.CANCELLING:
            return await self._say_so(run)
        if await self._agent_lives(run):
            log.warning("run.agent_lives", run=run.id, token=run.token, worker=run.worker)
            return False
        now = self._shop.clock.wall_ms()
        try:
            await self._shop.uow.write(lambda tx: self._give_back(tx, run, now))
        except LeaseLost:
            return False
        log.info("run.given_back", run=run.id, token=run.token, worker=run.worker)
        return True

    async def _agent_lives(self, run: Run) -> bool:
        """By the database its keeper has ended it by now. One that was stopped has not: look, where we can."""
        turn, host = await self._shop.uow.read(lambda tx: _last_seen(tx, run))
        if turn is None or host is None:
            return False
        return await asyncio.to_thread(self._lives_here, host, turn)

    def _lives_here(self, host: Host, turn: Turn) -> bool:
        folder = folder_here(host, turn)
        return folder is not None and self._rouse(folder)

    async def _say_so(self, run: Run) -> bool:
        """It can go on nowhere else. What a blocked run waits for already stays what it waits for."""
        if run.waiting_for is not None or run.state is State.BLOCKED:
            return False

        def unit(tx: Transaction) -> bool:
            locked = tx.runs.lock(run.pk)
            if locked.token != run.token or locked.state != run.state or locked.waiting_for is not None:
                return False
            what = WaitingFor(
                kind="workspace", detail=f"host {name_of(tx, run.host_id)}, which does not answer"
            )
            tx.runs.save(replace(locked, waiting_for=what))
            return True

        return await self._shop.uow.write(unit)

    def _give_back(self, tx: Transaction, run: Run, now_ms: int) -> None:
        """The keeper's own deadline has passed: the turn is abandoned, and whoever can goes on with the run."""
        taken = tx.leases.take(run.pk, self._shop.worker.pk, run.token)
        if taken.state is State.CANCELLING:
            cancelled(tx, taken, now_ms, None)
            return
        turn = tx.turns.last(taken.pk)
        if turn is not None and turn.state is TurnState.STARTED:
            closing = Closing(result=TurnResult(abandoned=True), why_abandoned=SILENT, recovery=REASON)
            rules = Rules(policy=self._shop.policy, timing=self._shop.timing)
            if settle(tx, taken, now_ms, closing, None, rules) is None:
                return
            taken = tx.runs.lock(run.pk)
        else:
            taken = recovered(tx, taken, REASON, now_ms, adopted=False)
        moves.handed_back(tx, taken, REASON, now_ms)
        tx.notify("queue")


def _last_seen(tx: Transaction, run: Run) -> tuple[Turn | None, Host | None]:
    """The turn that was under way, and the host where it was."""
    turn = tx.turns.last(run.pk)
    under_way = turn if turn is not None and turn.state is TurnState.STARTED else None
    return under_way, recall(tx, run.host_id)
