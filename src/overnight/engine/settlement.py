"""The end of a turn: its row, its events and what becomes of the run are one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from overnight.clock import rfc3339
from overnight.domain.event import Draft
from overnight.domain.limits import Spending, nearly_spent
from overnight.domain.run import Run, Turn
from overnight.domain.session import MAX_MESSAGE, SessionMessage
from overnight.domain.states import Input, State, TurnState
from overnight.domain.text import cut_utf8, first_line
from overnight.domain.values import Failure, FileStats, TestStats, Usage, WaitingFor
from overnight.engine import moves, questions
from overnight.engine.boundary import cancelled, let_go
from overnight.engine.conversation import waits
from overnight.engine.follow_requests import drop_requests, is_steered
from overnight.engine.hold import Wish
from overnight.engine.hosts import kept_on
from overnight.engine.next_step import (
    Again,
    AskBudget,
    Complete,
    Fail,
    Fallback,
    NextTurn,
    Pause,
    Step,
    TurnResult,
    next_step,
)
from overnight.engine.policy import RunPolicy, Timing
from overnight.engine.turn_end import NOTHING_MORE, LastWords
from overnight.errors import Conflict
from overnight.ports.backend import Stopped
from overnight.ports.unit_of_work import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Everything that is known about a turn once its agent is gone. Nothing in it shows a secret."""

    result: TurnResult
    stop_reason: str | None = None
    stopped: Stopped | None = None
    why_abandoned: str = ""
    last: LastWords = NOTHING_MORE
    """What its output ended with."""
    drafts: Sequence[Draft] = ()
    """Events that were only seen after the agent's end."""
    usage: Usage | None = None
    tests: TestStats | None = None
    files: FileStats | None = None
    """What this turn did to the workspace."""
    files_of_run: FileStats | None = None
    """What the run has done to it since its beginning."""
    changed: bool = False
    """Whether the turn counts as work: the workspace or the plan is another."""
    last_message: str | None = None
    elapsed_ms: int | None = None
    """How long the turn took by a clock that does not jump; None where nobody watched it to its end."""
    recovery: str | None = None
    """Set when the end was found by the next holder: the reason of the recovery."""

    @property
    def outcome(self) -> TurnState:
        """The state in which the turn ends."""
        if self.result.abandoned:
            return TurnState.ABANDONED
        return TurnState.COMPLETED if self.result.failure is None else TurnState.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides beside the run itself."""

    policy: RunPolicy
    timing: Timing


def settle(
    tx: Transaction, run: Run, now_ms: int, closing: Closing, wish: Wish | None, rules: Rules
) -> Step | None:
    """Close the turn and decide. The step that is still to be carried out, or None when the run was let go."""
    turn = tx.turns.last(run.pk)
    if turn is None or turn.state is not TurnState.STARTED:
        raise Conflict("the turn has been settled already")
    _close(tx, run, turn, closing, now_ms)
    before, run = run, _accounted(run, turn, closing, now_ms)
    if run.state is State.BLOCKED:
        run = _answered_by_its_end(tx, run, closing, wish, now_ms)
    for entry in nearly_spent(run.limits, before.stats, run.stats):
        moves.note(tx, run, now_ms, Draft(type="budget.warned", data=entry.to_json()))
    if closing.recovery is not None:
        run = recovered(tx, run, closing.recovery, now_ms, adopted=False)
    if run.state is State.BLOCKED:
        questions.park(tx, run, "parked" if closing.result.interrupted or wish else "agent_gone", now_ms)
        return None
    more = waits(tx, run) if run.spec.mode == "chat" else is_steered(tx, run)
    step = next_step(run, closing.result, now_ms=now_ms, timing=rules.timing, more=more)
    return apply(tx, run, step, wish, now_ms, rules, closing.stopped)


def apply(
    tx: Transaction,
    run: Run,
    step: Step,
    wish: Wish | None,
    now_ms: int,
    rules: Rules,
    stopped: Stopped | None = None,
) -> Step | None:
    """Carry out `step` as far as one transaction can; what is left of it (a rest) comes back, None if nothing is."""
    if run.state is State.CANCELLING:
        cancelled(tx, run, now_ms, stopped or Stopped())
        return None
    backend = run.backend
    match step:
        case Complete(completion=completion):
            drop_requests(tx, run, now_ms)
            moves.complete(tx, run, completion, now_ms)
            return None
        case Fail(failure=failure):
            drop_requests(tx, run, now_ms)
            moves.fail(tx, run, failure, now_ms)
            return None
        case AskBudget(spending=spending):
            moves.note(tx, run, now_ms, Draft(type="budget.spent", data=_spent(spending)))
            expires_s = rules.policy.expires_s("budget", run.spec.approvals)
            approval = questions.ask(tx, run, questions.budget_question(spending, expires_s), now_ms)
            questions.wait(tx, replace(run, attempt=1), approval, now_ms)
            return None
        case Pause(failure=failure):
            _pause(tx, replace(run, attempt=1, fallback=0), failure, now_ms)
            return None
        case Again():
            run = replace(run, attempt=run.attempt + 1)
        case NextTurn():
            run = replace(run, attempt=1)
        case Fallback(index=index):
            run = replace(run, attempt=1, fallback=index)
    saved = tx.runs.save(run)
    gone = let_go(tx, saved, wish, now_ms) or _goes_elsewhere(tx, saved, backend, now_ms)
    return None if gone else step


def _goes_elsewhere(tx: Transaction, run: Run, backend: str, now_ms: int) -> bool:
    """With another backend than before a run is taken by whoever offers that one, within its limits."""
    if run.backend == backend:
        return False
    moves.handed_back(tx, run, "fallback", now_ms)
    return True


def _spent(spending: Spending) -> dict[str, object]:
    return {**spending.to_json(), "detail": str(spending)}


def _answered_by_its_end(tx: Transaction, run: Run, closing: Closing, wish: Wish | None, now_ms: int) -> Run:
    """An agent that has ended its turn in order, and by itself, no longer waits for whatever it had asked."""
    result = closing.result
    if wish or result.failure or result.interrupted or result.abandoned:
        return run
    moves.drop_approvals(tx, run, "the agent went on without an answer", now_ms)
    return questions.unblock(tx, run, now_ms, {"reason": "turn_ended"})


def recovered(tx: Transaction, run: Run, reason: str, now_ms: int, *, adopted: bool) -> Run:
    """Another hold has taken over; `adopted`: with a living turn, so that nothing was lost."""
    data = {"from_attempt": run.attempt, "reason": reason, "adopted": adopted}
    if run.waiting_for is not None and run.waiting_for.kind == "workspace":  # it waited for its host
        run = replace(run, waiting_for=None)
    return moves.move(tx, run, Input.ADOPT, "run.recovered", now_ms, data)


def _close(tx: Transaction, run: Run, turn: Turn, closing: Closing, now_ms: int) -> None:
    data = _data(turn, closing)
    last = closing.last
    if last.state is not None:
        tx.sessions.save_backend_state(run.session_pk, turn.backend, kept_on(run.host_id, last.state))
    drafts = [*last.drafts, *closing.drafts, Draft(type=f"turn.{closing.outcome.value}", data=data)]
    stamped = [replace(draft, turn=turn.number, attempt=turn.attempt) for draft in drafts]
    last_seq = tx.events.append(run.pk, stamped, now_ms)[-1].seq
    tx.turns.save(
        replace(
            turn, position=last.position or turn.position, items=turn.items + last.items,
            state=closing.outcome, ended_at=now_ms, last_seq=last_seq, stop_reason=closing.stop_reason,
            error=closing.result.failure, usage=closing.usage, files=closing.files, tests=closing.tests,
            last_message=first_line(closing.last_message) if closing.last_message else None,
        )
    )  # fmt: skip
    tx.sessions.touch(run.session_pk, now_ms)
    if closing.last_message:
        message = SessionMessage(
            role="assistant", text=_kept(closing.last_message), at=now_ms, run_id=run.id, turn=turn.number
        )
        tx.sessions.add_message(run.session_pk, message)


def _kept(text: str) -> str:
    """What a history keeps of a message; the log has all of it."""
    head = cut_utf8(text, MAX_MESSAGE)
    return text if head == text else head + "\n[… the rest is in the log of the run …]"


def _data(turn: Turn, closing: Closing) -> dict[str, object]:
    if closing.result.abandoned:
        return {"turn": turn.number, "reason": closing.why_abandoned}
    if closing.result.failure is not None:
        return {"turn": turn.number, **closing.result.failure.to_json()}
    return {
        "turn": turn.number,
        "stop_reason": closing.stop_reason,
        "duration_ms": closing.elapsed_ms or 0,
        "usage": closing.usage.to_json() if closing.usage else None,
    }


def _accounted(run: Run, turn: Turn, closing: Closing, now_ms: int) -> Run:
    """The run with this turn's amounts. A turn counts as one only when it ended in order by itself."""
    stats, result = run.stats, closing.result
    ended = not (result.failure or result.interrupted or result.abandoned)
    stats = replace(
        stats,
        turns=stats.turns + ended,
        usage=stats.usage + (closing.usage or Usage()),
        files=closing.files_of_run or stats.files,
        tests=closing.tests or stats.tests,
        wall_ms=stats.wall_ms + _elapsed_ms(run, turn, closing, now_ms),
    )
    idle = 0 if closing.changed else run.idle_turns + ended
    return replace(run, stats=stats, idle_turns=idle, pid=None, now=None, updated_at=now_ms)


def _elapsed_ms(run: Run, turn: Turn, closing: Closing, now_ms: int) -> int:
    elapsed = closing.elapsed_ms
    if elapsed is None:
        elapsed = elapsed_by_wall(run, turn, now_ms)
    return max(0, elapsed - turn.blocked_ms - questions.blocked_ms(run, now_ms))


def elapsed_by_wall(run: Run, turn: Turn, now_ms: int) -> int:
    """Milliseconds since the turn began, with the time that a person was waited for.

    The wall clock may have jumped, so never more than a turn may take besides that.
    """
    waited = turn.blocked_ms + questions.blocked_ms(run, now_ms)
    return min(max(0, now_ms - turn.started_at), round(run.limits.turn_timeout_s * 1000) + waited)


def _pause(tx: Transaction, run: Run, failure: Failure, now_ms: int) -> None:
    extra = {**failure.to_json(), "retry_at": rfc3339(failure.retry_at) if failure.retry_at else None}
    if run.state is State.RUNNING:
        run = moves.move(tx, run, Input.PAUSE, "run.pausing", now_ms, {"reason": "backend_error"})
    what = WaitingFor(kind="backend", detail=f"{failure.code}: {failure.message}"[:500])
    moves.paused(tx, replace(run, waiting_for=what), "backend_error", now_ms, extra=extra)
