"""The moves of a run that several callers make: state, event and session in one transaction.

Each takes the run as it is locked in that transaction and gives it back as it is after the move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Literal

from overnight.domain.approval import Approval
from overnight.domain.event import Draft
from overnight.domain.run import Run
from overnight.domain.session import Phase
from overnight.domain.states import Input, State
from overnight.domain.values import Cancellation, Completion, Failure, PauseReason, WaitingFor
from overnight.ports.notifier import QUEUE
from overnight.ports.unit_of_work import Transaction


def move(
    tx: Transaction,
    run: Run,
    input: Input,
    type: str,
    now_ms: int,
    data: Mapping[str, object],
    **changes: object,
) -> Run:
    """Advance the state, record the event, save. Final and unheld states end the hold. Raises InvalidTransition."""
    moved = run.moved(input, now_ms, **changes)
    if moved.final:
        drop_approvals(tx, moved, f"the run was {moved.state}", now_ms)
    note(tx, moved, now_ms, Draft(type=type, data=data))
    saved = tx.runs.save(moved)
    if (phase := PHASES.get(saved.state)) is not None and saved.parent_id is None:
        tx.sessions.touch(saved.session_pk, now_ms, phase=phase)
    if saved.final:
        _settle_session(tx, saved, now_ms)
    if saved.state in _UNHELD:
        tx.leases.drop(saved.pk)
    return saved


def note(tx: Transaction, run: Run, now_ms: int, *drafts: Draft) -> None:
    """Record events in the run's present turn and attempt."""
    turn = run.turn or None
    attempt = run.attempt if run.turn else None
    tx.events.append(
        run.pk,
        [replace(draft, turn=draft.turn or turn, attempt=draft.attempt or attempt) for draft in drafts],
        now_ms,
    )


def drop_approvals(tx: Transaction, run: Run, why: str, now_ms: int) -> None:
    """Cancel every open approval of `run`: what they ask about will not happen."""
    for approval in tx.approvals.pending(run.pk):
        withdraw(tx, run, approval, why, now_ms)


def withdraw(tx: Transaction, run: Run, approval: Approval, why: str, now_ms: int) -> None:
    """Cancel one open approval; the caller sees to the run."""
    tx.approvals.save(replace(approval, state="cancelled", resolved_at=now_ms))
    data = {"approval_id": approval.id, "kind": approval.kind, "reason": why}
    note(tx, run, now_ms, Draft(type="approval.cancelled", data=data))


def complete(
    tx: Transaction, run: Run, completion: Completion, now_ms: int, input: Input = Input.COMPLETE
) -> Run:
    """The run is done."""
    data = {**completion.to_json(), "stats": run.stats.to_json()}
    return move(tx, run, input, "run.completed", now_ms, data, completion=completion)


def fail(tx: Transaction, run: Run, failure: Failure, now_ms: int) -> Run:
    """The run could not go on."""
    data = {**failure.to_json(), "stats": run.stats.to_json()}
    return move(tx, run, Input.FAIL, "run.failed", now_ms, data, error=failure)


def cancelled(tx: Transaction, run: Run, cancellation: Cancellation, now_ms: int) -> Run:
    """The run was stopped: at once when nobody held it, else once its process tree is gone."""
    input = Input.TREE_GONE if run.state is State.CANCELLING else Input.CANCEL
    data = {**cancellation.to_json(), "stats": run.stats.to_json()}
    return move(tx, run, input, "run.cancelled", now_ms, data, cancellation=cancellation)


def paused(
    tx: Transaction,
    run: Run,
    reason: PauseReason,
    now_ms: int,
    *,
    input: Input = Input.TURN_SETTLED,
    extra: Mapping[str, object] | None = None,
) -> Run:
    """The run stands still; what it waited for, if anything, stays open."""
    data = {"reason": reason, **(extra or {})}
    return move(
        tx, run, input, "run.paused", now_ms, data, pause_reason=reason, worker=None, pid=None, now=None
    )


def blocked(tx: Transaction, run: Run, what: WaitingFor, until: int, now_ms: int) -> Run:
    """The run waits for a person; its agent lives on under its keeper."""
    data = {"waiting_for": what.to_json()}
    return move(
        tx, run, Input.BLOCK, "run.blocked", now_ms, data,
        waiting_for=what, waiting_until=until, waiting_since=now_ms,
    )  # fmt: skip


def parked(tx: Transaction, run: Run, why: str, now_ms: int) -> Run:
    """The agent of a blocked run was stopped, or died; what it waits for stays open."""
    waiting_for = run.waiting_for.to_json() if run.waiting_for else None
    data = {"reason": why, "waiting_for": waiting_for}
    return move(tx, run, Input.PARK, "run.waiting", now_ms, data, worker=None, pid=None, now=None)


def went_on(
    tx: Transaction, run: Run, input: Input, data: Mapping[str, object], now_ms: int, **changes: object
) -> Run:
    """A run that nobody holds is due again: at once, or, if it has not begun yet, at the time that was asked for."""
    later = run.not_before if run.started_at is None and (run.not_before or 0) > now_ms else None
    moved = move(
        tx, run, input, "run.resumed", now_ms, data, waiting_for=None if later is None else WaitingFor(kind="time"),
        waiting_until=None, waiting_since=None, pause_reason=None, not_before=later, **changes,
    )  # fmt: skip
    tx.notify(QUEUE)
    return moved


def waiting(tx: Transaction, run: Run, what: WaitingFor, until: int | None, now_ms: int) -> Run:
    """The run waits for a person; no process lives."""
    data = {"waiting_for": what.to_json()}
    return move(
        tx,
        run,
        Input.WAIT,
        "run.waiting",
        now_ms,
        data,
        waiting_for=what,
        waiting_until=until,
        waiting_since=now_ms,
        worker=None,
        pid=None,
        now=None,
    )


def handed_back(
    tx: Transaction,
    run: Run,
    reason: Literal["shutdown", "lease_lost", "worker_gone", "fallback"],
    now_ms: int,
) -> Run:
    """The hold ends in order, or is lost for good; another worker may take the run (a pending pause: it is paused)."""
    type = {State.RUNNING: "run.requeued", State.PAUSING: "run.paused", State.BLOCKED: "run.waiting"}[
        run.state
    ]
    changes: dict[str, object] = {"worker": None, "pid": None, "now": None}
    if run.state is State.PAUSING:
        changes["pause_reason"] = run.pause_reason or "manual"
    return move(tx, run, Input.HAND_BACK, type, now_ms, {"reason": reason}, **changes)


_UNHELD: Final = frozenset({State.QUEUED, State.PAUSED, State.WAITING})
"""Besides the final ones, whose hold ends with the saving."""


PHASES: Final[Mapping[State, Phase]] = MappingProxyType(
    {
        State.RUNNING: "execution",
        State.BLOCKED: "review",
        State.WAITING: "review",
        State.COMPLETED: "completed",
        State.FAILED: "failed",
        State.CANCELLED: "failed",
    }
)
"""What its top-level run's state says of a session; the other states leave it as it is."""


def _settle_session(tx: Transaction, run: Run, now_ms: int) -> None:
    session = tx.sessions.lock(run.session_pk)
    drafts = [Draft(type="run.settled", data={"run_id": run.id, "state": run.state.value})]
    if session.made_for_run and session.state == "active":
        state: Literal["completed", "suspended"] = (
            "completed" if run.state is State.COMPLETED else "suspended"
        )
        tx.sessions.save(replace(session, state=state, updated_at=now_ms))
        drafts.append(Draft(type=f"session.{state}", data={"by": run.id}))
    tx.events.append(session.pk, drafts, now_ms)
