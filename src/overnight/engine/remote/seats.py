"""Who a worker elsewhere is, and whether a run is its: asked in the transaction that does something for it."""

from __future__ import annotations

from dataclasses import dataclass

from overnight.domain.run import Run
from overnight.domain.states import HELD
from overnight.domain.worker import Worker
from overnight.errors import BatchOutOfOrder, Forbidden, LeaseLost, NotFound
from overnight.ids import HostId, RunId, WorkerId
from overnight.ports.remote import Batch, Holder, LastBatch, Seat
from overnight.ports.unit_of_work import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A worker as it comes in: the id that it says, and the token that the gate has checked."""

    worker_id: WorkerId
    token_pk: int


def seat_of(tx: Transaction, caller: Caller) -> Seat:
    """The worker's seat. Raises NotFound when it has none yet, Forbidden when it came with another token."""
    seat = tx.remote.seat(caller.worker_id)
    if seat is None:
        raise NotFound("no such worker is registered", mend="offer your slots first: POST /api/v1/leases")
    if seat.token_pk != caller.token_pk:
        raise Forbidden("that worker came with another token")
    return seat


def held(tx: Transaction, seat: Seat, run_id: RunId, token: int | None = None) -> Run:
    """The run. Raises LeaseLost unless that worker holds it (under `token`) by a lease that has not run out.

    A run that was never its is refused in the same words, so nothing is learned about it.
    """
    run = known(tx, run_id)
    holder = tx.remote.holder(run.pk)
    if holder is None or holder.worker_pk != seat.worker.pk or token not in {None, holder.token}:
        raise LeaseLost("the run is not held so by this worker")
    if holder.expired:
        raise LeaseLost("the lease has run out")
    return run


def known(tx: Transaction, run_id: RunId) -> Run:
    """The run. Raises LeaseLost when there is none."""
    try:
        return tx.runs.get(run_id, None)
    except NotFound:
        raise LeaseLost("the run is not held so by this worker") from None


def of_host(tx: Transaction, caller: Caller, host_id: HostId, run: Run) -> Holder:
    """Who holds a run, if that is a worker of this host that came with the same token. Raises LeaseLost."""
    holder = tx.remote.holder(run.pk)
    seats = {seat.worker.pk for seat in tx.remote.seats(host_id, caller.token_pk)}
    if run.state not in HELD or holder is None or holder.worker_pk not in seats:
        raise LeaseLost("the run is not held so by a worker of this host")
    return holder


def check_newcomer(tx: Transaction, worker: Worker, caller: Caller) -> None:
    """Raise Forbidden for a worker that comes from a host which is somebody else's.

    What waits for a host, and what is known of its backends, belongs to whoever is there: a host is not to be had by
    naming it. It is free again once nobody is there any more, or the token of whoever was is revoked.
    """
    if tx.remote.seat(caller.worker_id) is not None:
        return
    for other in tx.workers.all():
        if other.host_id != worker.host_id or other.state == "gone":
            continue
        seat = tx.remote.seat(other.id)
        if seat is None or (seat.token_pk != caller.token_pk and _is_good(tx, seat.token_pk)):
            raise Forbidden(
                f"worker {other.id} is on that host, and came otherwise",
                mend="give every worker a data directory of its own; to change its token, revoke the former one",
            )


def _is_good(tx: Transaction, token_pk: int) -> bool:
    return any(token.pk == token_pk and token.revoked_at is None for token in tx.tokens.all(None))


def beat(tx: Transaction, seat: Seat, now_ms: int) -> None:
    """The worker lives. Others may have taken it for gone while it could not reach us: it is back."""
    tx.workers.beat(seat.worker.pk, now_ms)
    if seat.worker.state == "gone":
        tx.workers.set_state(seat.worker.id, "active", now_ms)


def check_order(last: LastBatch | None, batch: Batch) -> None:
    """Raise BatchOutOfOrder unless this batch is the next one.

    The batches of a hold come one after the other, each only once the one before was answered. So an answer can be
    lost for the last one alone, and what has an earlier number was delayed on its way, and answered long ago.
    """
    done = last.n if last is not None and last.token == batch.token else 0
    if batch.n != done + 1:
        raise BatchOutOfOrder(f"batch {batch.n} does not follow {done}", extra={"last": done})


def newest(tx: Transaction, run_pk: int) -> int:
    """The number of the newest request to a run; 0 when none is pending."""
    return max((request.pk for request in tx.requests.pending(run_pk)), default=0)


def found(tx: Transaction, run_id: RunId) -> Run | None:
    """The run, if there is one."""
    try:
        return tx.runs.get(run_id, None)
    except NotFound:
        return None


def last_type(tx: Transaction, run: Run) -> str | None:
    """The type of the run's last event."""
    last = tx.events.after(run.pk, run.last_seq - 1, 1)
    return last[0].type if last else None
