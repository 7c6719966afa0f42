"""Control of one run: pause, resume, cancel, steer. A run that nobody holds moves at once; else its holder is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ValidationError

from overnight.domain.event import Draft
from overnight.domain.limits import spent
from overnight.domain.request import Principal, RequestKind, SteerHow, When
from overnight.domain.run import Run
from overnight.domain.spec import LimitsSpec
from overnight.domain.states import HELD, Input, State
from overnight.domain.values import Cancellation, CancelReason, Completion
from overnight.engine import moves
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
    run = _raised(run, asked.limits, ceiling)
    if run.state is State.PAUSING:
        moved = moves.move(tx, run, Input.RESUME, "run.resumed", now_ms, data, pause_reason=None)
        _ask(tx, moved, "resume", data, by, now_ms)
        return moved
    if run.state is State.WAITING:
        _check_raised(run)
        return _go_on(tx, run, Input.CONTINUE, data, now_ms)
    if run.state is State.PAUSED and _budget_is_open(run):
        return moves.move(tx, run, Input.RESUME_WAITING, "run.waiting", now_ms, data, pause_reason=None)
    return _go_on(tx, run, Input.RESUME, data, now_ms)


def _go_on(tx: Transaction, run: Run, input: Input, data: Mapping[str, object], now_ms: int) -> Run:
    moved = moves.move(
        tx, run, input, "run.resumed", now_ms, data,
        waiting_for=None, waiting_until=None, pause_reason=None, not_before=None,
    )  # fmt: skip
    tx.notify("queue")
    return moved


def _cancel(tx: Transaction, run: Run, asked: Control, by: Principal, now_ms: int) -> Run:
    ending = (asked.limits or {}).get("on_spent")
    if run.state is State.WAITING and ending == "finish":
        return moves.complete(tx, run, Completion(by="decision"), now_ms, input=Input.FINISH)
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
    how = rules.steer_how(run, asked.when) if run.state in HELD else "queue"
    data = {"text": asked.text, "how": how, "by": by.name}
    moves.note(tx, run, now_ms, Draft(type="run.steered", data=data))
    tx.requests.add(run.pk, "steer", data, by, now_ms)
    return run, how


def _ask(
    tx: Transaction, run: Run, kind: RequestKind, body: Mapping[str, object], by: Principal, now_ms: int
) -> None:
    moves.note(tx, run, now_ms, Draft(type="control.requested", data={"action": kind, **body}))
    tx.requests.add(run.pk, kind, body, by, now_ms)


def _raised(run: Run, limits: Mapping[str, object] | None, ceiling: LimitsSpec | None) -> Run:
    if not limits:
        return run
    try:
        raised = LimitsSpec.model_validate({**run.limits.model_dump(), **limits})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"limits.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    check_limits(raised, ceiling)
    return replace(run, raised_limits=raised)


def _budget_is_open(run: Run) -> bool:
    return (
        run.waiting_for is not None
        and run.waiting_for.kind == "budget"
        and spent(run.limits, run.stats) is not None
    )


def _check_raised(run: Run) -> None:
    if _budget_is_open(run):
        raise ApprovalPending(
            f"{run.id} has spent its budget",
            mend="resume with higher `limits`, or cancel (with limits.on_spent `finish` to count it as done)",
        )
