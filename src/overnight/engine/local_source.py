"""Runs from the database that this process can reach: what a worker asks of it, as units of work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.lease import DEFAULT_LEASE_S, Lease
from overnight.domain.queue_limits import NO_LIMITS, QueueLimits
from overnight.domain.run import Run
from overnight.domain.states import Input, State
from overnight.domain.values import Cancellation, Failure
from overnight.domain.worker import Offer, Worker
from overnight.engine import moves, questions
from overnight.errors import LeaseLost
from overnight.ids import RunId
from overnight.ports.unit_of_work import Transaction, UnitOfWork

OfferOf = Callable[[Worker, int], Offer]


def offer_of(
    worker: Worker, free: int, *, limits: QueueLimits = NO_LIMITS, lease_s: float = DEFAULT_LEASE_S
) -> Offer:
    """What a worker with `free` slots can take."""
    return Offer(
        worker_pk=worker.pk, host_id=worker.host_id, backends=worker.backends, places=worker.places,
        labels=worker.labels, free=free, limits=limits, lease_s=lease_s,
    )  # fmt: skip


class LocalRunSource:
    """See `ports.run_source.RunSource`. `alone`: no other process works on this database, not even to serve it."""

    def __init__(
        self, uow: UnitOfWork, clock: Clock, worker: Worker, *, offer: OfferOf = offer_of, alone: bool = True
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._worker = worker
        self._offer = offer
        self._alone = alone

    async def claim(self, free: int) -> tuple[Run, ...]:
        """See the port."""
        offer = self._offer(self._worker, free)
        return await self._uow.write(lambda tx: claimed(tx, offer, self._worker, self._clock.wall_ms()))

    async def take(self, run: Run) -> Run:
        """See the port."""
        lease_s = self._offer(self._worker, 1).lease_s
        return await self._uow.write(lambda tx: tx.leases.take(run.pk, self._worker.pk, run.token, lease_s))

    async def look(self, run_id: RunId) -> Run:
        """See the port."""
        return await self._uow.read(lambda tx: tx.runs.get(run_id, None))

    async def renew(self, tokens: Mapping[int, int]) -> frozenset[int]:
        """See the port."""
        return await self._uow.write(lambda tx: tx.leases.renew(self._worker.pk, tokens), urgent=True)

    async def fail(self, run: Run, failure: Failure) -> None:
        """See the port."""
        now = self._clock.wall_ms()
        await self._uow.write(lambda tx: broken(tx, run, self._worker.pk, failure, now))

    async def hand_over(self, leases: Sequence[Lease]) -> None:
        """See the port."""
        await self._uow.write(partial(handed_over, leases=leases, worker=self._worker, clock=self._clock))

    async def succeed(self) -> tuple[Run, ...]:
        """See the port."""
        now = self._clock.wall_ms()
        return await self._uow.write(lambda tx: succeeded(tx, self._worker, now, alone=self._alone))

    async def leave(self) -> None:
        """See the port."""
        worker, now = self._worker, self._clock.wall_ms()
        await self._uow.write(lambda tx: tx.workers.set_state(worker.id, "gone", now))


def claimed(tx: Transaction, offer: Offer, worker: Worker, now_ms: int) -> tuple[Run, ...]:
    """Claim what is due and move it to running."""
    return tuple(_started(tx, run, worker, now_ms) for run in tx.leases.claim(offer, now_ms))


def _started(tx: Transaction, run: Run, worker: Worker, now_ms: int) -> Run:
    type = "run.started" if run.started_at is None else "run.resumed"
    return moves.move(
        tx, run, Input.CLAIM, type, now_ms, {"worker": worker.id, "host_id": worker.host_id},
        worker=worker.id, started_at=run.started_at or now_ms, waiting_for=None, waiting_until=None,
        not_before=None, pause_reason=None,
    )  # fmt: skip


def broken(tx: Transaction, run: Run, worker_pk: int, failure: Failure, now_ms: int) -> None:
    """End a held run that nobody here can carry out. Raises LeaseLost."""
    locked = tx.leases.take(run.pk, worker_pk, run.token)
    if locked.state is State.CANCELLING:
        moves.cancelled(tx, locked, Cancellation(reason="system", survivors=None), now_ms)
        return
    if locked.state is State.BLOCKED:
        locked = questions.unblock(tx, locked, now_ms, {"reason": "failed"})
    moves.fail(tx, locked, failure, now_ms)


def handed_over(tx: Transaction, leases: Sequence[Lease], worker: Worker, clock: Clock) -> None:
    """Note it in every run that is still held so."""
    for lease in leases:
        try:
            run = tx.leases.check(lease)
        except LeaseLost:
            continue
        moves.note(tx, run, clock.wall_ms(), Draft(type="run.handed_over", data={"worker": worker.id}))


def succeeded(tx: Transaction, worker: Worker, now_ms: int, *, alone: bool) -> tuple[Run, ...]:
    """What earlier workers of this host hold; none of them can be alive, since the data is ours.

    Unless this process is `alone`, servers without slots may live beside it.
    """
    for other in tx.workers.all():
        earlier = other.host_id == worker.host_id and other.id != worker.id and other.state != "gone"
        if earlier and (alone or other.slots):
            tx.workers.set_state(other.id, "gone", now_ms)
            tx.connections.forget(other.id)
    return tuple(found.run for found in tx.leases.held(worker.host_id))
