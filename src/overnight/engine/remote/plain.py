"""Workers of any kind: what they report in plain words becomes what the engine would have recorded itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.run import Position, Run, Turn
from overnight.domain.session import SessionMessage
from overnight.domain.states import HELD, State, TurnState
from overnight.domain.values import Completion, Failure, Usage
from overnight.engine.boundary import give_back_until, let_go
from overnight.engine.conversation import words
from overnight.engine.follow_requests import said, steering
from overnight.engine.hold import Wish
from overnight.engine.next_step import Again, NextTurn, TurnResult
from overnight.engine.opening import begun, next_place
from overnight.engine.remote import rules
from overnight.engine.settlement import Closing, Rules, settle
from overnight.errors import Conflict, Forbidden
from overnight.ports.notifier import QUEUE
from overnight.ports.unit_of_work import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a turn ended, as its worker says."""

    outcome: Literal["completed", "failed", "released"]
    done: bool = False
    """The whole goal is reached, not this turn alone."""
    message: str | None = None
    """The agent's last words; of a failure, what was wrong."""
    code: str = "failed"
    retryable: bool = False
    usage: Usage | None = None


def report(
    tx: Transaction, run: Run, drafts: Sequence[Draft], position: Position | None, redactor: Redactor, now_ms: int
) -> None:  # fmt: skip
    """Record what the agent did. Raises Forbidden for an event that would move something."""
    for draft in drafts:
        if not rules.is_telemetry(draft.type):
            raise Forbidden(f"{draft.type[:80]!r} is not a worker's to report")
    if run.last_seq >= run.limits.events:
        raise Conflict(
            f"the run has recorded {run.limits.events} events",
            mend="acknowledge the turn: outcome `failed`, code `event_limit`",
        )
    turn = _turn(tx, run, now_ms)
    hidden = [
        replace(draft, data=redactor.json(dict(draft.data)), turn=turn.number, attempt=turn.attempt)
        for draft in drafts
    ]
    tx.events.append(run.pk, hidden, now_ms)
    if position is not None:
        if position.stdout < turn.position.stdout or position.stderr < turn.position.stderr:
            raise Conflict("what was reported stays reported: positions only grow")
        tx.turns.advance(run.pk, turn.number, turn.attempt, position, 0)


def acknowledge(
    tx: Transaction, run: Run, outcome: Outcome, policy: Rules, redactor: Redactor, now_ms: int
) -> None:  # fmt: skip
    """End the turn and the hold: whatever is to be done next is there for any worker to take."""
    if outcome.outcome == "released" and not _in_progress(tx, run):
        if not let_go(tx, run, "shutdown", now_ms):
            raise Conflict("the run cannot be given back now")
        return
    _turn(tx, run, now_ms)
    run = tx.runs.lock(run.pk)
    wish: Wish | None = "shutdown" if outcome.outcome == "released" else None
    closing = _closing(outcome, redactor)
    if outcome.outcome == "completed" and closing.last_message:
        data = {"item_id": f"turn-{run.turn}", "text": closing.last_message}
        draft = Draft(type="message.completed", data=data, turn=run.turn, attempt=run.attempt)
        closing = replace(closing, drafts=(draft,))
    step = settle(tx, run, now_ms, closing, wish, policy)
    run = tx.runs.lock(run.pk)
    if step is None or run.state not in HELD:
        return
    rest_s = step.rest_s if isinstance(step, Again | NextTurn) else 0.0
    give_back_until(
        tx, run, "back_off" if isinstance(step, Again) else "next_turn", now_ms + round(rest_s * 1000), now_ms
    )
    tx.notify(QUEUE)


def _closing(outcome: Outcome, redactor: Redactor) -> Closing:
    message = redactor.text(outcome.message) if outcome.message else None
    if outcome.outcome == "failed":
        failure = Failure(
            code=outcome.code,
            message=(message or "the worker says no more")[:2000],
            retryable=outcome.retryable,
        )
        return Closing(result=TurnResult(failure=failure), usage=outcome.usage)
    if outcome.outcome == "released":
        return Closing(
            result=TurnResult(interrupted=True),
            stop_reason="interrupted",
            usage=outcome.usage,
            last_message=message,
        )
    met = Completion(by="backend") if outcome.done else None
    return Closing(
        result=TurnResult(met=met), stop_reason="end_turn", usage=outcome.usage, last_message=message,
        changed=True,
    )  # fmt: skip


def _in_progress(tx: Transaction, run: Run) -> bool:
    turn = tx.turns.last(run.pk)
    return turn is not None and turn.state is TurnState.STARTED


def _turn(tx: Transaction, run: Run, now_ms: int) -> Turn:
    """The turn in progress; the first report of a hold begins one."""
    last = tx.turns.last(run.pk)
    if last is not None and last.state is TurnState.STARTED:
        return last
    if run.state not in {State.RUNNING, State.PAUSING}:
        raise Conflict(f"no turn can begin while the run is {run.state.value}")
    place = next_place(run, last)
    turn = Turn(
        run_pk=run.pk, number=place.number, attempt=place.attempt, state=TurnState.STARTED, backend=run.backend,
        model=run.model, token=run.token, folder=f"runs/{run.id}/turns/{place.number}-{place.attempt}",
        started_at=now_ms, first_seq=0,
    )  # fmt: skip
    tx.turns.open(turn)
    opened = tx.runs.save(replace(run, turn=turn.number, attempt=turn.attempt, updated_at=now_ms))
    _tell_session(tx, opened, now_ms)
    return begun(tx, tx.runs.lock(run.pk), turn, None, now_ms)


def _tell_session(tx: Transaction, run: Run, now_ms: int) -> None:
    tx.sessions.touch(run.session_pk, now_ms, step=run.turn)
    steers = steering(tx, run)
    if run.spec.mode == "chat":
        words(tx, run, steers, (), redo=False).take(tx, run, now_ms)
    elif (run.turn, run.attempt) == (1, 1):
        goal = SessionMessage(role="user", text=run.spec.goal, at=now_ms, run_id=run.id, turn=1)
        tx.sessions.add_message(run.session_pk, goal)
    for request in steers:
        said(tx, run, request, now_ms, f"used in turn {run.turn}")
