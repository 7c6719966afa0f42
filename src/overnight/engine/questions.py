"""Approvals inside a transaction: opening one, deciding it, and dropping it, each together with the run's move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from overnight.clock import rfc3339
from overnight.domain.action import Action
from overnight.domain.approval import (
    LASTING,
    Approval,
    Decision,
    Option,
)
from overnight.domain.event import Draft, canonical
from overnight.domain.limits import Spending
from overnight.domain.request import Principal
from overnight.domain.run import Run
from overnight.domain.spec import ApprovalKind, LimitsSpec
from overnight.domain.states import Input, State
from overnight.domain.values import Cancellation, Completion, WaitingFor, WaitingKind
from overnight.engine import moves
from overnight.errors import InvalidTransition
from overnight.ids import new_approval_id
from overnight.ports.unit_of_work import Transaction

BUDGET_OPTIONS: Final = (
    Option(id="raise", label="Raise the budget and go on", kind="raise"),
    Option(id="finish", label="Finish here", kind="finish"),
    Option(id="cancel", label="Cancel the run", kind="cancel"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be asked of a person. Title and context show no secret."""

    kind: ApprovalKind
    title: str
    context: Mapping[str, object]
    digest: str
    options: Sequence[Option]
    default_option: str
    expires_s: float
    action: Action | None = None
    request: str | None = None
    """Key of the agent's own request in the present turn."""


def ask(tx: Transaction, run: Run, question: Question, now_ms: int) -> Approval:
    """Open an approval for the present turn of `run`; the caller moves the run in the same transaction."""
    approval = tx.approvals.add(
        Approval(
            pk=0, id=new_approval_id(now_ms), owner=run.owner, run_pk=run.pk, run_id=run.id,
            session_pk=run.session_pk, session_id=run.session_id, turn=run.turn or None,
            attempt=run.attempt if run.turn else None, request=question.request, kind=question.kind,
            title=question.title, context=question.context, action=question.action, digest=question.digest,
            options=tuple(question.options), default_option=question.default_option,
            expires_at=now_ms + round(question.expires_s * 1000), created_at=now_ms,
        )
    )  # fmt: skip
    moves.note(tx, run, now_ms, Draft(type="approval.requested", data=shown(approval)))
    return approval


def budget_question(spending: Spending, expires_s: float) -> Question:
    """A budget is spent: raise it, finish, or cancel. Finishing is the default."""
    digest = sha256(canonical(spending.to_json())).hexdigest()
    return Question(
        kind="budget", title=f"The budget is spent: {spending}", context=spending.to_json(), digest=digest,
        options=BUDGET_OPTIONS, default_option="finish", expires_s=expires_s,
    )  # fmt: skip


def shown(approval: Approval) -> dict[str, object]:
    """The data of `approval.requested`."""
    return {
        "approval_id": approval.id,
        "kind": approval.kind,
        "title": approval.title,
        "context": dict(approval.context),
        "digest": approval.digest,
        "options": [option.to_json() for option in approval.options],
        "default_option": approval.default_option,
        "expires_at": rfc3339(approval.expires_at),
    }


def block(tx: Transaction, run: Run, approval: Approval, now_ms: int) -> Run:
    """The run needs a person while its agent lives. One that is blocked already stays so, for all that is open."""
    if run.state is State.BLOCKED:
        return run
    return moves.blocked(tx, run, waiting_for(approval), approval.expires_at, now_ms)


def waiting_for(approval: Approval) -> WaitingFor:
    """What a run that this approval holds up waits for."""
    kinds: Mapping[ApprovalKind, WaitingKind] = {"question": "question", "budget": "budget"}
    kind = kinds.get(approval.kind, "approval")
    return WaitingFor(kind=kind, approval_id=approval.id, detail=approval.title[:500])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """A decision that has been checked against its approval. `expired`: nobody decided in time."""

    decision: Decision
    option: Option
    limits: LimitsSpec | None = None
    """The raised limits, for a spent budget."""
    expired: bool = False


def decide(
    tx: Transaction, run: Run, approval: Approval, ruling: Ruling, by: Principal, now_ms: int
) -> Approval:
    """Settle an open approval and move its run. Raises InvalidTransition for a run that is being cancelled."""
    if run.state is State.CANCELLING or run.final:
        raise InvalidTransition(run.state.value, "decide")
    decided = replace(
        approval,
        state="expired" if ruling.expired else "resolved",
        decision=ruling.decision,
        resolved_at=now_ms,
    )
    tx.approvals.save(decided)
    if ruling.option.kind in LASTING and ruling.option.rule is not None:
        tx.approvals.add_rule(
            approval.session_pk, ruling.option.rule, approval_pk=approval.pk, by=by.name, at=now_ms
        )
    type = "approval.expired" if ruling.expired else "approval.resolved"
    moves.note(tx, run, now_ms, Draft(type=type, data=_decided(decided, ruling)))
    if approval.kind == "budget":
        _budget_decided(tx, run, ruling, now_ms)
    else:
        tx.requests.add(run.pk, "decide", _for_the_agent(decided, ruling), by, now_ms)
        _go_on(tx, run, now_ms)
    return decided


def unblock(tx: Transaction, run: Run, now_ms: int, data: Mapping[str, object]) -> Run:
    """Nothing is open any more and the agent lives: the run goes on, if only towards a pause that was asked for."""
    _count_blocked(tx, run, now_ms)
    run = moves.move(
        tx,
        run,
        Input.DECIDE,
        "run.resumed",
        now_ms,
        data,
        waiting_for=None,
        waiting_until=None,
        waiting_since=None,
    )
    if run.pause_reason is None:
        return run
    return moves.move(tx, run, Input.PAUSE, "run.pausing", now_ms, {"reason": run.pause_reason})


def withdrawn(tx: Transaction, run: Run, approval: Approval, now_ms: int) -> Run:
    """The living agent no longer waits for the answer: the run goes on, or waits for what else is open."""
    moves.withdraw(tx, run, approval, "the agent withdrew it", now_ms)
    _go_on(tx, run, now_ms, "withdrawn")
    return tx.runs.lock(run.pk)


def park(tx: Transaction, run: Run, why: str, now_ms: int) -> Run:
    """The agent of a blocked run is gone; what it asked stays open, and the decision starts the turn again.

    A pause that was asked for before takes effect now.
    """
    _count_blocked(tx, run, now_ms)
    return _paused_if_asked(tx, moves.parked(tx, run, why, now_ms), now_ms)


def wait(tx: Transaction, run: Run, approval: Approval, now_ms: int) -> Run:
    """The run needs a person while no agent lives. A pause that was asked for before takes effect now."""
    run = moves.waiting(tx, run, waiting_for(approval), approval.expires_at, now_ms)
    return _paused_if_asked(tx, run, now_ms)


def _paused_if_asked(tx: Transaction, run: Run, now_ms: int) -> Run:
    if run.pause_reason is None:
        return run
    return moves.paused(tx, run, run.pause_reason, now_ms, input=Input.PAUSE)


def blocked_ms(run: Run, now_ms: int) -> int:
    """How long the present wait has lasted."""
    if run.state is not State.BLOCKED or run.waiting_since is None:
        return 0
    return max(0, now_ms - run.waiting_since)


def _count_blocked(tx: Transaction, run: Run, now_ms: int) -> None:
    """The wait is over: no clock of a limit ran meanwhile."""
    turn = tx.turns.last(run.pk)
    if turn is not None and turn.number == run.turn:
        tx.turns.save(replace(turn, blocked_ms=turn.blocked_ms + blocked_ms(run, now_ms)))


def _go_on(tx: Transaction, run: Run, now_ms: int, reason: str = "decided") -> None:
    """The run's move once a question is closed: it waits for another one, as long as one is open."""
    pending = tx.approvals.pending(run.pk)
    if pending:
        until = min(approval.expires_at for approval in pending)
        tx.runs.save(
            replace(run, waiting_for=waiting_for(pending[0]), waiting_until=until, updated_at=now_ms)
        )
    elif run.state is State.BLOCKED:
        unblock(tx, run, now_ms, {"reason": reason})
    elif run.state is State.WAITING:
        moves.went_on(tx, run, Input.CONTINUE, {"reason": reason}, now_ms)
    elif run.state is State.PAUSED:
        # It stays paused; with nothing open any more, `resume` will let it work.
        tx.runs.save(replace(run, waiting_for=None, waiting_until=None, updated_at=now_ms))


def _budget_decided(tx: Transaction, run: Run, ruling: Ruling, now_ms: int) -> None:
    """A run that is paused takes the way back through `waiting` when the decision ends it."""
    kind = ruling.option.kind
    if kind == "raise":
        _go_on(tx, replace(run, raised_limits=ruling.limits), now_ms)
        return
    if run.state is State.PAUSED:
        run = moves.move(tx, run, Input.RESUME_WAITING, "run.waiting", now_ms, {"reason": "decided"})
    if kind == "finish":
        moves.complete(tx, run, Completion(by="decision"), now_ms, input=Input.FINISH)
    else:
        moves.cancelled(tx, run, Cancellation(reason="manual", survivors=0), now_ms)


def _decided(approval: Approval, ruling: Ruling) -> dict[str, object]:
    data: dict[str, object] = {
        "approval_id": approval.id,
        "kind": approval.kind,
        "digest": approval.digest,
        **ruling.decision.to_json(),
    }
    if ruling.option.kind in LASTING and ruling.option.rule is not None:
        data["rule"] = ruling.option.rule.to_json()
    return data


def _for_the_agent(approval: Approval, ruling: Ruling) -> dict[str, object]:
    """The body of a `decide` request: for the living agent, or for the prompt of the turn that is done again."""
    return {
        "approval_id": approval.id,
        "request": approval.request,
        "turn": approval.turn,
        "attempt": approval.attempt,
        "kind": approval.kind,
        "title": approval.title,
        "option": ruling.option.id,
        "option_kind": ruling.option.kind,
        "label": ruling.option.label,
        "feedback": ruling.decision.feedback or "",
        "expired": ruling.expired,
    }
