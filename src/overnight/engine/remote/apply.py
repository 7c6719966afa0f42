"""A batch of a worker elsewhere, done again in one transaction through the same tables, step by step and checked.

Whatever a step names is looked up beneath the run that the batch is about: there is no way to name another. Times,
numbers, owners and keys are the server's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, assert_never

from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.run import Run, Turn
from overnight.domain.session import MAX_MESSAGE
from overnight.domain.states import FINAL, HELD, TurnState
from overnight.domain.worker import Worker
from overnight.engine.moves import PHASES
from overnight.engine.remote import rules
from overnight.errors import Conflict, Forbidden, InvalidInput, NotFound
from overnight.ids import ApprovalId, MessageId, check_id
from overnight.ports.notifier import QUEUE
from overnight.ports.remote import (
    AddApproval,
    AddInput,
    Advance,
    Append,
    Batch,
    Drop,
    EndSession,
    Op,
    OpenTurn,
    Place,
    Remember,
    SaveApproval,
    SaveRun,
    SaveTurn,
    Say,
    Settle,
    TakeMessage,
    Touch,
)
from overnight.ports.unit_of_work import Transaction

MOST_OPS: Final = 2000
MOST_EVENTS: Final = 20_000
LONGEST_WAIT_MS: Final = 366 * 86_400_000
LONGEST_WAY_MS: Final = 10_000
_SLACK: Final = 200
"""Bytes that a history adds to a message that it cuts."""


class PlaceDiffers(Exception):
    """Not an error: the workspace is free, or taken, where the worker believed otherwise."""

    def __init__(self, *, free: bool) -> None:
        super().__init__("the workspace is not as the worker believed")
        self.free = free


class Application:
    """Applies one batch to one run, which is locked."""

    def __init__(self, tx: Transaction, run: Run, worker: Worker, now_ms: int, redactor: Redactor) -> None:
        self._tx = tx
        self._run = run
        self._worker = worker
        self._now = now_ms
        self._redactor = redactor
        self._said: list[str] = []
        """Events of moves whose move is still to come."""
        self._to_session: list[Draft] = []
        self._questions = 0
        self._withdrawn = 0
        self._ends = 0
        self._ended = False
        """Whether this batch has ended the turn."""
        self._events = 0

    def apply(self, batch: Batch) -> Run:
        """The run after all of it. Raises Forbidden, Conflict, InvalidInput, PlaceDiffers; then nothing counts."""
        if len(batch.ops) > MOST_OPS:
            raise InvalidInput(f"a batch may have at most {MOST_OPS} steps")
        for op in batch.ops:
            self._step(op)
        self._check_words()
        if self._run.state not in HELD:
            self._tx.leases.drop(self._run.pk)
        if batch.wake:
            self._tx.notify(QUEUE)
        return self._run

    def _check_words(self) -> None:
        if self._said:
            raise Forbidden(f"{self._said[0]} says that the run moves, and it does not")
        if self._questions or self._withdrawn or self._ends:
            raise Forbidden("an event tells of an approval, or of a turn's end, that the batch does not hold")

    def _step(self, op: Op) -> None:  # noqa: C901, PLR0912 -- one line for each kind
        match op:
            case Append(drafts=drafts, to="run"):
                self._append(drafts)
            case Append(drafts=drafts):
                self._tell_session(drafts)
            case SaveRun(run=wanted):
                self._save_run(wanted)
            case Drop():
                self._drop()
            case Place():
                self._place(op)
            case OpenTurn(turn=turn):
                self._open_turn(turn)
            case SaveTurn(turn=turn):
                self._save_turn(turn)
            case Advance():
                self._advance(op)
            case AddInput():
                turn = self._turn()
                self._tx.turns.add_input(self._run.pk, turn.number, turn.attempt, op.n, op.data)
            case Settle():
                self._settle(op)
            case Touch():
                self._touch(op)
            case Say():
                self._say(op)
            case Remember(backend=backend, state=state):
                self._remember(backend, state)
            case EndSession():
                self._end_session(op)
            case TakeMessage(id=message_id):
                self._take_message(message_id)
            case AddApproval():
                self._add_approval(op)
            case SaveApproval():
                self._save_approval(op)
            case _:
                assert_never(op)

    # the run and its log

    def _append(self, drafts: Sequence[Draft]) -> None:
        self._events += len(drafts)
        if self._events > MOST_EVENTS:
            raise InvalidInput(f"a batch may have at most {MOST_EVENTS} events")
        for draft in drafts:
            rules.check_type(draft.type)
            self._note(draft)
        hidden = [replace(draft, data=self._redactor.json(dict(draft.data))) for draft in drafts]
        recorded = self._tx.events.append(self._run.pk, hidden, self._now)
        if recorded:
            self._run = replace(self._run, last_seq=recorded[-1].seq)

    def _note(self, draft: Draft) -> None:
        """What the rest of the batch has to bear out."""
        if draft.type in rules.SAID:
            self._said.append(draft.type)
        elif draft.type == "approval.requested":
            self._questions -= 1
        elif draft.type == "approval.cancelled":
            self._withdrawn -= 1
        elif draft.type == "approval.resolved" and draft.data.get("by") != "rule":
            raise Forbidden("a worker decides nothing: only a rule's decision is its to write down")
        elif draft.type in rules.TURN_ENDS:
            self._ends += 1

    def _save_run(self, wanted: Run) -> None:
        said = self._said.pop(0) if self._said else None
        changed = rules.moved(self._run, wanted, said, self._worker.id, self._now)
        self._check_times(changed)
        if changed.turn < self._run.turn or changed.fallback > len(changed.spec.fallback):
            raise Forbidden("turns and fallbacks only go on")
        self._run = self._tx.runs.save(changed)

    def _check_times(self, run: Run) -> None:
        for at in (run.waiting_until, run.not_before):
            if at is not None and at > self._now + LONGEST_WAIT_MS:
                raise InvalidInput("that is more than a year away")

    def _drop(self) -> None:
        if self._run.state in HELD:
            raise Forbidden(f"a run that is {self._run.state.value} is held")
        self._tx.leases.drop(self._run.pk)

    def _place(self, op: Place) -> None:
        free = self._tx.runs.set_workspace(self._run.pk, op.path, op.chain)
        if free != op.free:
            raise PlaceDiffers(free=free)
        self._run = self._tx.runs.lock(self._run.pk)

    # turns

    def _turn(self) -> Turn:
        turn = self._tx.turns.last(self._run.pk)
        if turn is None or turn.state is not TurnState.STARTED:
            raise Conflict("no turn is in progress")
        return turn

    def _open_turn(self, turn: Turn) -> None:
        last = self._tx.turns.last(self._run.pk)
        number, attempt = (0, 0) if last is None else (last.number, last.attempt)
        if last is not None and last.state is TurnState.STARTED:
            raise Conflict("a turn is in progress")
        again = turn.number == number and turn.attempt > attempt
        if not again and (turn.number, turn.attempt) != (number + 1, 1):
            raise Conflict(f"turn {turn.number}, attempt {turn.attempt} does not come next")
        self._tx.turns.open(
            Turn(
                run_pk=self._run.pk, number=turn.number, attempt=turn.attempt, state=TurnState.STARTED,
                backend=self._run.backend, model=self._run.model, token=self._run.token,
                folder=f"runs/{self._run.id}/turns/{turn.number}-{turn.attempt}", started_at=self._now,
                first_seq=0, resume_before=turn.resume_before,
            )
        )  # fmt: skip

    def _save_turn(self, wanted: Turn) -> None:
        turn = self._tx.turns.last(self._run.pk)
        if turn is None or (wanted.number, wanted.attempt) != (turn.number, turn.attempt):
            raise Conflict("only the latest turn can change")
        if turn.state is not TurnState.STARTED:
            self._count_wait(turn, wanted)
            return
        if wanted.state is not turn.state:
            self._ends -= 1
            self._ended = True
        if max(wanted.first_seq, wanted.last_seq or 0) > self._run.last_seq:
            raise Conflict("a turn cannot end with an event that is not there yet")
        ended_at = None if wanted.state is TurnState.STARTED else self._now
        self._tx.turns.save(
            replace(
                wanted, run_pk=turn.run_pk, backend=turn.backend, model=turn.model, token=turn.token,
                folder=turn.folder, started_at=turn.started_at, ended_at=ended_at, resume_before=turn.resume_before,
            )
        )  # fmt: skip

    def _count_wait(self, turn: Turn, wanted: Turn) -> None:
        """How long a person was waited for is counted once the turn has ended, in the same unit."""
        if not self._ended:
            raise Conflict("no turn is in progress")
        self._tx.turns.save(replace(turn, blocked_ms=wanted.blocked_ms))

    def _advance(self, op: Advance) -> None:
        turn = self._turn()
        if (
            op.position.stdout < turn.position.stdout
            or op.position.stderr < turn.position.stderr
            or op.items < 0
        ):
            raise Conflict("what was recorded stays recorded: positions only grow")
        self._tx.turns.advance(self._run.pk, turn.number, turn.attempt, op.position, op.items)

    # requests, session, messages

    def _settle(self, op: Settle) -> None:
        if any(request.pk == op.request for request in self._tx.requests.pending(self._run.pk)):
            self._tx.requests.settle(op.request, op.outcome[:200], self._now)

    def _touch(self, op: Touch) -> None:
        phase = next((known for known in PHASES.values() if known == op.phase), None)
        self._tx.sessions.touch(self._run.session_pk, self._now, phase=phase, step=op.step)

    def _say(self, op: Say) -> None:
        message = op.message
        if message.role not in {"user", "assistant"}:
            raise Forbidden(f"a run says nothing as {message.role}")
        if len(message.text.encode("utf-8", "surrogatepass")) > MAX_MESSAGE + _SLACK:
            raise InvalidInput("the message is too long for a history")
        text = self._redactor.text(message.text) if message.role == "assistant" else message.text
        self._tx.sessions.add_message(
            self._run.session_pk, replace(message, text=text, at=self._now, run_id=self._run.id)
        )

    def _remember(self, backend: str, state: object) -> None:
        known = {
            self._run.backend,
            self._run.spec.backend,
            *(f.partition("/")[0] for f in self._run.spec.fallback),
        }
        if backend not in known or not isinstance(state, dict):
            raise Forbidden("a run remembers only the state of its own backends")
        self._tx.sessions.save_backend_state(self._run.session_pk, backend, state)

    def _tell_session(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            data = draft.data
            mine = data.get("by" if draft.type.startswith("session.") else "run_id") == self._run.id
            if draft.type == "session.message_taken":
                mine = data.get("run_id") == self._run.id and self._was_taken(
                    data.get("message_id"), data.get("turn")
                )
            ended = draft.type != "run.settled" or data.get("state") == self._run.state.value
            if draft.type not in _SESSION_TYPES or not mine or not ended:
                raise Forbidden(f"{draft.type[:80]!r} is not this run's to write")
        self._tx.events.append(self._run.session_pk, drafts, self._now)

    def _was_taken(self, message_id: object, turn: object) -> bool:
        found = self._tx.queue.get(self._run.session_pk, MessageId(str(message_id)))
        return (found.state, found.run_id, found.turn) == ("sent", self._run.id, turn)

    def _end_session(self, op: EndSession) -> None:
        session = self._tx.sessions.lock(self._run.session_pk)
        if self._run.state not in FINAL or not session.made_for_run or session.state != "active":
            raise Forbidden("the session does not end with this run")
        self._tx.sessions.save(replace(session, state=op.state, updated_at=self._now))

    def _take_message(self, message_id: str) -> None:
        message = self._tx.queue.get(self._run.session_pk, MessageId(message_id))
        # By the turn that was opened, not by the run: in the unit that begins a turn the run is saved last.
        last = self._tx.turns.last(self._run.pk)
        turn = None if last is None else last.number
        self._tx.queue.save(replace(message, state="sent", run_id=self._run.id, turn=turn), self._now)

    # approvals

    def _add_approval(self, op: AddApproval) -> None:
        wanted, run = op.approval, self._run
        self._questions += 1
        approval_id = ApprovalId(check_id("apr", wanted.id))
        if _exists(lambda: self._tx.approvals.get(approval_id, None)):
            raise Conflict("there is such an approval already")
        latest = self._now + LONGEST_WAIT_MS
        self._tx.approvals.add(
            replace(
                wanted, pk=0, id=approval_id, owner=run.owner, run_pk=run.pk, run_id=run.id,
                session_pk=run.session_pk, session_id=run.session_id, turn=run.turn or None,
                attempt=run.attempt if run.turn else None, state="pending", decision=None, resolved_at=None,
                used_at=None, created_at=self._just_now(wanted.created_at),
                expires_at=max(self._now, min(wanted.expires_at, latest)),
                context=self._redactor.json(dict(wanted.context)), title=self._redactor.text(wanted.title),
            )
        )  # fmt: skip

    def _just_now(self, at: int) -> int:
        """The worker's moment, if it can be believed: a question is as old as its way to us."""
        return at if self._now - LONGEST_WAY_MS <= at <= self._now else self._now

    def _save_approval(self, op: SaveApproval) -> None:
        approval = self._tx.approvals.get(ApprovalId(op.id), None)
        if approval.run_pk != self._run.pk:
            raise NotFound(f"no approval {op.id[:60]}")
        if op.cancelled:
            if approval.state != "pending":
                raise Conflict("what is decided cannot be withdrawn")
            self._withdrawn += 1
            self._tx.approvals.save(replace(approval, state="cancelled", resolved_at=self._now))
        else:
            self._tx.approvals.save(replace(approval, used_at=self._now if op.used else None))


_SESSION_TYPES: Final = frozenset(
    {"run.settled", "session.completed", "session.suspended", "session.message_taken"}
)


def _exists(look: Callable[[], object]) -> bool:
    try:
        look()
    except NotFound:
        return False
    return True
