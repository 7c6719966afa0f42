"""Who a worker elsewhere is, and whether a run is its: asked in the transaction that does something for it."""

from __future__ import annotations

from dataclasses import dataclass

from overnight.domain.run import Run
from overnight.domain.states import HELD
from overnight.errors import Forbidden, LeaseLost, NotFound
from overnight.ids import HostId, RunId, WorkerId
from overnight.ports.remote import Holder, Seat
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
