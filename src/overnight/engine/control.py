"""Control of one run: pause, resume, cancel, steer. A run that nobody holds moves at once; else its holder is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from overnight.domain.approval import Approval, Decision
from overnight.domain.documents import checked
from overnight.domain.event import Draft
from overnight.domain.json_values import Unfit, dump
from overnight.domain.limits import spent
from overnight.domain.request import Principal, RequestKind, SteerHow, When
from overnight.domain.run import Run
from overnight.domain.spec import LimitsSpec
from overnight.domain.states import HELD, Input, State
from overnight.domain.values import Cancellation, CancelReason
from overnight.engine import moves, questions
from overnight.engine.admission import check_limits
from overnight.errors import ApprovalPending, InvalidInput, InvalidTransition
from overnight.ports.unit_of_work import Transaction

Action = Literal["pause", "resume", "cancel", "steer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the server decides about controls: how a steer reaches an agent, and how far limits may be raised."""

    steer_how: Callable[[Run, When | None], SteerHow]
    max_limits: LimitsSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What is asked. `limits` goes with resume (raises a spent budget) and cancel (`on_spent: finish|fail` ends it)."""

    action: Action
    reason: str | None = None
    text: str | None = None
    when: When | None = None
    limits: Mapping[str, object] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    """More members for the request of a steer."""


def control(
    tx: Transaction, run: Run, asked: Control, by: Principal, *, now_ms: int, rules: Rules
) -> tuple[Run, SteerHow | None]:
    """Carry out `asked` on the locked `run`. The run after it, and for a steer how the text travels."""
    if run.final:
        raise InvalidTransition(run.state.value, asked.action)
    match asked.action:
        case "pause":
            return _pause(tx, run, asked, by, now_ms), None
        case "resume":
            return _resume(tx, run, asked, by, now_ms, rules.max_limits), None
        case "cancel":
            return _cancel(tx, run, asked, by, now_ms), None
        case "steer":
            return _steer(tx, run, asked, by, now_ms, rules)


def _pause(tx: Transaction, run: Run, asked: Control, by: Principal, now_ms: int) -> Run:
    data = {"by": by.name, "note": asked.reason, "when": asked.when or "after_turn"}
    if run.state not in HELD:
        return moves.paused(
            tx, run, "manual", now_ms, input=Input.PAUSE, extra={"by": by.name, "note": asked.reason}
        )
    moved = moves.move(tx, run, Input.PAUSE, "run.pausing", now_ms, data, pause_reason="manual")
    _ask(tx, moved, "pause", data, by, now_ms)
    return moved


def _resume(
    tx: Transaction, run: Run, asked: Control, by: Principal, now_ms: int, ceiling: LimitsSpec | None
) -> Run:
    data = {"by": by.name, "note": asked.reason}
    run = replace(run, raised_limits=raised(run, asked.limits, ceiling))
    if run.state is State.PAUSING:
        moved = moves.move(tx, run, Input.RESUME, "run.resumed", now_ms, data, pause_reason=None)
        _ask(tx, moved, "resume", data, by, now_ms)
        return moved
    if run.state not in {State.WAITING, State.PAUSED}:
        return moves.went_on(tx, run, Input.RESUME, data, now_ms)
    _raise_budget(tx, run, by, now_ms)
    run = replace(tx.runs.lock(run.pk), raised_limits=run.raised_limits)
    pending = tx.approvals.pending(run.pk)
    if run.state is State.QUEUED:
        return run
    if not pending:
        input = Input.RESUME if run.state is State.PAUSED else Input.CONTINUE
        return moves.went_on(tx, run, input, data, now_ms)
    if run.state is State.PAUSED:
        return moves.move(tx, run, Input.RESUME_WAITING, "run.waiting", now_ms, data, pause_reason=None)
    raise _pending(run, pending)


def _cancel(tx: Transaction, run: Run, asked: Control, by: Principal, now_ms: int) -> Run:
    ending = (asked.limits or {}).get("on_spent")
    if ending == "finish" and (budget := _open_budget(tx, run)) is not None:
        questions.decide(tx, run, budget, _ruling(budget, "finish", by), by, now_ms)
        return tx.runs.lock(run.pk)
    reason: CancelReason = "system" if by.kind == "system" else "manual"
    if run.state not in HELD:
        return moves.cancelled(tx, run, Cancellation(reason=reason, survivors=0), now_ms)
    data = {"by": by.name, "note": asked.reason, "reason": reason}
    moved = moves.move(tx, run, Input.CANCEL, "run.cancelling", now_ms, data)
    _ask(tx, moved, "cancel", data, by, now_ms)
    return moved


def _steer(
    tx: Transaction, run: Run, asked: Control, by: Principal, now_ms: int, rules: Rules
) -> tuple[Run, SteerHow]:
    if not asked.text or not asked.text.strip():
        raise InvalidInput("a steer needs a text", mend='send {"action": "steer", "text": "…"}')
    if run.state is State.CANCELLING:
        raise InvalidTransition(run.state.value, "steer")
    # A blocked agent waits for a decision: what else is said to it comes after that.
    at_work = run.state in HELD and run.state is not State.BLOCKED
    how = rules.steer_how(run, asked.when) if at_work else "queue"
    data = {"text": asked.text, "how": how, "by": by.name}
    moves.note(tx, run, now_ms, Draft(type="run.steered", data=data))
    tx.requests.add(run.pk, "steer", {**data, **asked.extra}, by, now_ms)
    return run, how


def _ask(
    tx: Transaction, run: Run, kind: RequestKind, body: Mapping[str, object], by: Principal, now_ms: int
) -> None:
    moves.note(tx, run, now_ms, Draft(type="control.requested", data={"action": kind, **body}))
    tx.requests.add(run.pk, kind, body, by, now_ms)


def raised(run: Run, limits: object, ceiling: LimitsSpec | None) -> LimitsSpec | None:
    """The run's limits with those of `limits` in their place. Raises InvalidInput, AboveCeiling."""
    if not limits:
        return run.raised_limits
    if not isinstance(limits, Mapping):
        raise InvalidInput("limits must be an object", mend='send {"limits": {"tokens": 100000}}')
    try:
        wanted = checked(LimitsSpec, {**dump(run.limits), **limits})
    except Unfit as unfit:
        raise InvalidInput(str(unfit.within("limits"))) from None
    check_limits(wanted, ceiling)
    return wanted


def _open_budget(tx: Transaction, run: Run) -> Approval | None:
    return next((found for found in tx.approvals.pending(run.pk) if found.kind == "budget"), None)


def _raise_budget(tx: Transaction, run: Run, by: Principal, now_ms: int) -> None:
    """A resume with limits that are no longer spent is the decision to raise the budget."""
    budget = _open_budget(tx, run)
    if budget is not None and spent(run.limits, run.stats) is None:
        ruling = replace(_ruling(budget, "raise", by), limits=run.raised_limits)
        questions.decide(tx, run, budget, ruling, by, now_ms)


def _ruling(approval: Approval, option_id: str, by: Principal) -> questions.Ruling:
    option = next(option for option in approval.options if option.id == option_id)
    return questions.Ruling(decision=Decision(option=option_id, by=by.name), option=option)


def _pending(run: Run, pending: Sequence[Approval]) -> ApprovalPending:
    if pending[0].kind == "budget":
        return ApprovalPending(
            f"{run.id} has spent its budget",
            mend="resume with higher `limits`, or cancel (with limits.on_spent `finish` to count it as done)",
            extra={"approval_id": pending[0].id},
        )
    ids = [approval.id for approval in pending]
    return ApprovalPending(
        f"{run.id} waits for {len(ids)} decision{'s' if len(ids) > 1 else ''}: {', '.join(ids)}",
        mend="decide with: overnight approve, or overnight deny",
        extra={"approval_id": ids[0]},
    )
