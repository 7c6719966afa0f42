"""A batch of a worker elsewhere, done again in one transaction through the same tables, step by step and checked.

Whatever a step names is looked up beneath the run that the batch is about: there is no way to name another. Times,
numbers, owners and keys are the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, assert_never

from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.run import Position, Run, Turn
from overnight.domain.states import HELD, TurnState
from overnight.domain.worker import Worker
from overnight.engine.remote import rules
from overnight.engine.remote.people import LONGEST_WAIT_MS, People
from overnight.engine.remote.witness import Witness
from overnight.errors import Conflict, Forbidden, InvalidInput
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
MOST_OVER: Final = 100_000
"""Events by which a run may exceed its limit, until its worker has heard of it and ended the turn."""
MOST_CHAIN: Final = 1000
_OF_THE_LIVING: Final = (SaveRun, Place, OpenTurn, SaveTurn, Advance, AddInput, AddApproval, SaveApproval)
"""Steps, besides events of its log, that a run which has ended no longer takes."""


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
        self._witness = Witness()
        self._people = People(tx, worker, now_ms, redactor, self._witness)
        self._ended = False
        """Whether this batch has ended the turn."""
        self._events = 0

    def apply(self, batch: Batch) -> Run:
        """The run after all of it. Raises Forbidden, Conflict, InvalidInput, PlaceDiffers; then nothing counts."""
        if len(batch.ops) > MOST_OPS:
            raise InvalidInput(f"a batch may have at most {MOST_OPS} steps")
        for op in batch.ops:
            rules.check_values(op)
            self._step(op)
        self._witness.check()
        if self._run.state not in HELD:
            self._tx.leases.drop(self._run.pk)
        if batch.wake:
            self._tx.notify(QUEUE)
        return self._run

    def _step(self, op: Op) -> None:  # noqa: C901, PLR0912 -- one line for each kind
        if self._run.final and isinstance(op, _OF_THE_LIVING):
            raise Forbidden("the run has ended")
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
                self._people.settle(self._run, op)
            case Touch():
                self._people.touch(self._run, op)
            case Say():
                self._people.say(self._run, op)
            case Remember():
                self._people.remember(self._run, op)
            case EndSession():
                self._people.end_session(self._run, op)
            case TakeMessage():
                self._people.take_message(self._run, op)
            case AddApproval():
                self._people.add_approval(self._run, op)
            case SaveApproval():
                self._people.save_approval(self._run, op)
            case _:
                assert_never(op)

    # the run, its log and its session's

    def _append(self, drafts: Sequence[Draft]) -> None:
        self._count(drafts)
        if self._run.final:
            raise Forbidden("the log of a run that has ended takes nothing more")
        if self._run.last_seq + len(drafts) > self._run.limits.events + MOST_OVER:
            raise Conflict(f"the run has recorded more than its {self._run.limits.events} events")
        written = []
        for seq, draft in enumerate(drafts, self._run.last_seq + 1):
            rules.check_type(draft.type)
            self._check_stamp(draft)
            turn = self._tx.turns.last(self._run.pk) if draft.type.startswith("turn.") else None
            self._witness.note(draft, turn, seq)
            written.append(replace(draft, data=self._redactor.json(self._data(draft))))
        recorded = self._tx.events.append(self._run.pk, written, self._now)
        if recorded:
            self._run = replace(self._run, last_seq=recorded[-1].seq)

    def _count(self, drafts: Sequence[Draft]) -> None:
        self._events += len(drafts)
        if self._events > MOST_EVENTS:
            raise InvalidInput(f"a batch may have at most {MOST_EVENTS} events")

    def _data(self, draft: Draft) -> dict[str, object]:
        if draft.type == "approval.requested":
            return self._people.shown(str(draft.data["approval_id"]))
        return dict(draft.data)

    def _check_stamp(self, draft: Draft) -> None:
        """An event is about the run's present turn: the one it stands at, or the one that was opened last."""
        run = self._run
        if draft.turn in {None, run.turn or None} and draft.attempt in {None, run.attempt}:
            return
        last = self._tx.turns.last(run.pk)
        number, attempt = (None, 1) if last is None else (last.number, last.attempt)
        # A move may begin the count of attempts anew, or raise it, and its event is written before it is saved.
        attempts = {None, 1, attempt, run.attempt, run.attempt + 1}
        if draft.turn not in {None, run.turn or None, number} or draft.attempt not in attempts:
            raise Forbidden(f"{draft.type} is about another turn than the run's")

    def _save_run(self, wanted: Run) -> None:
        changed = rules.moved(self._run, wanted, self._witness.moving(), self._worker.id, self._now)
        self._check_times(changed)
        self._check_place(changed)
        self._witness.moved(self._run, changed)
        self._run = self._tx.runs.save(rules.hidden_run(changed, self._redactor))

    def _check_times(self, run: Run) -> None:
        for at in (run.waiting_until, run.not_before):
            if at is not None and at > self._now + LONGEST_WAIT_MS:
                raise InvalidInput("that is more than a year away")

    def _check_place(self, wanted: Run) -> None:
        """The run stands at its last turn, at one of its attempts or the next."""
        if (wanted.turn, wanted.attempt) == (self._run.turn, self._run.attempt):
            return
        last = self._tx.turns.last(self._run.pk)
        number, attempt = (0, 1) if last is None else (last.number, last.attempt)
        attempts = {1, attempt, self._run.attempt, self._run.attempt + 1}
        if wanted.turn not in {self._run.turn, number} or wanted.attempt not in attempts:
            raise Forbidden("turns and attempts only go on, one by one")

    def _drop(self) -> None:
        if self._run.state in HELD:
            raise Forbidden(f"a run that is {self._run.state.value} is held")
        self._tx.leases.drop(self._run.pk)

    def _place(self, op: Place) -> None:
        if not op.path.startswith("/") or "\0" in op.path or len(op.chain) > MOST_CHAIN:
            raise InvalidInput("that is no directory")
        free = self._tx.runs.set_workspace(self._run.pk, op.path, op.chain)
        if free != op.free:
            raise PlaceDiffers(free=free)
        self._run = self._tx.runs.lock(self._run.pk)

    def _tell_session(self, drafts: Sequence[Draft]) -> None:
        self._count(drafts)
        told = [Draft(type=one.type, data=self._witness.tell_session(one, self._run)) for one in drafts]
        self._tx.events.append(self._run.session_pk, told, self._now)

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
        again = turn.number == number and turn.attempt == self._run.attempt > attempt
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
        self._witness.turn_saved(turn, wanted)
        _check_onward(turn, wanted.position, wanted.items - turn.items)
        if (wanted.last_seq or 0) > self._run.last_seq:
            raise Conflict("a turn cannot end with an event that is not there yet")
        self._ended |= wanted.state is not turn.state
        ended_at = None if wanted.state is TurnState.STARTED else self._now
        wanted = replace(
            wanted, run_pk=turn.run_pk, backend=turn.backend, model=turn.model, token=turn.token,
            folder=turn.folder, started_at=turn.started_at, ended_at=ended_at, resume_before=turn.resume_before,
        )  # fmt: skip
        self._tx.turns.save(rules.hidden_turn(wanted, self._redactor))

    def _count_wait(self, turn: Turn, wanted: Turn) -> None:
        """How long a person was waited for is counted once the turn has ended, in the same unit."""
        if not self._ended:
            raise Conflict("no turn is in progress")
        self._tx.turns.save(replace(turn, blocked_ms=wanted.blocked_ms))

    def _advance(self, op: Advance) -> None:
        turn = self._turn()
        _check_onward(turn, op.position, op.items)
        self._tx.turns.advance(self._run.pk, turn.number, turn.attempt, op.position, op.items)


def _check_onward(turn: Turn, position: Position, more: int) -> None:
    before = turn.position
    if position.stdout < before.stdout or position.stderr < before.stderr or more < 0:
        raise Conflict("what was recorded stays recorded: positions only grow")
    if turn.items + more > rules.MOST_NUMBER:
        raise InvalidInput("nobody counts that far")
