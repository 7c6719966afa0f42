"""The steps of a batch that are about people: the run's session, its messages, its approvals, what was asked of it.

What people have said and decided is theirs: a worker can pass it on, and cannot make it up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from overnight.domain.redaction import Redactor
from overnight.domain.run import Run
from overnight.domain.session import MAX_MESSAGE, SessionMessage
from overnight.domain.states import FINAL, State
from overnight.domain.worker import Worker
from overnight.engine import questions
from overnight.engine.follow_requests import steering, text_of
from overnight.engine.hosts import is_known_on
from overnight.engine.moves import PHASES
from overnight.engine.remote import rules
from overnight.engine.remote.witness import Witness
from overnight.engine.waiting_messages import MESSAGE
from overnight.errors import Conflict, Forbidden, InvalidInput, NotFound
from overnight.ids import ApprovalId, MessageId, check_id
from overnight.ports.remote import (
    AddApproval,
    EndSession,
    Remember,
    SaveApproval,
    Say,
    Settle,
    TakeMessage,
    Touch,
)
from overnight.ports.unit_of_work import Transaction

LONGEST_WAIT_MS: Final = 366 * 86_400_000
LONGEST_WAY_MS: Final = 10_000
MOST_OPEN: Final = 1000
"""Questions of one run that may be open at once."""
_SLACK: Final = 200
"""Bytes that a history adds to a message that it cuts."""


class People:
    """For one batch; the run is given as it is at that step."""

    def __init__(
        self, tx: Transaction, worker: Worker, now_ms: int, redactor: Redactor, witness: Witness
    ) -> None:
        self._tx = tx
        self._worker = worker
        self._now = now_ms
        self._redactor = redactor
        self._witness = witness

    def settle(self, run: Run, op: Settle) -> None:
        """A request was acted on."""
        if any(request.pk == op.request for request in self._tx.requests.pending(run.pk)):
            self._tx.requests.settle(op.request, op.outcome[:200], self._now)

    def touch(self, run: Run, op: Touch) -> None:
        """The session was used."""
        phase = next((known for known in PHASES.values() if known == op.phase), None)
        self._tx.sessions.touch(run.session_pk, self._now, phase=phase, step=op.step)

    def say(self, run: Run, op: Say) -> None:
        """One message more in the history. Raises Forbidden for words that nobody has said, or another turn's."""
        message = op.message
        if len(message.text.encode("utf-8", "surrogatepass")) > MAX_MESSAGE + _SLACK:
            raise InvalidInput("the message is too long for a history")
        if message.turn not in {None, run.turn or None} and message.turn != self._turn_number(run):
            raise Forbidden("the message is about another turn than the run's")
        if message.role == "user":
            self._check_said(run, message)
            text = message.text
        elif message.role == "assistant":
            text = self._redactor.text(message.text)
        else:
            raise Forbidden(f"a run says nothing as {message.role}")
        said = replace(message, text=text, at=self._now, run_id=run.id)
        self._tx.sessions.add_message(run.session_pk, said)

    def _turn_number(self, run: Run) -> int | None:
        last = self._tx.turns.last(run.pk)
        return None if last is None else last.number

    def _check_said(self, run: Run, message: SessionMessage) -> None:
        said = {run.spec.goal, *map(text_of, steering(self._tx, run))}
        if message.text not in said and all(message.text != one.text for one in self._waiting(run)):
            raise Forbidden("nobody has said that")

    def _waiting(self, run: Run) -> tuple[Any, ...]:
        return self._tx.queue.queued(run.session_pk, 1) if run.spec.mode == "chat" else ()

    def remember(self, run: Run, op: Remember) -> None:
        """The backend's own state of the session."""
        if op.backend not in rules.own_backends(run):
            raise Forbidden("a run remembers only the state of its own backends")
        if not is_known_on(self._worker.host_id, op.state):
            raise Forbidden("a worker knows nothing of conversations on another host")
        self._tx.sessions.save_backend_state(run.session_pk, op.backend, op.state)

    def end_session(self, run: Run, op: EndSession) -> None:
        """The session that was made for the run ends with it."""
        session = self._tx.sessions.lock(run.session_pk)
        if run.state not in FINAL or not session.made_for_run or session.state != "active":
            raise Forbidden("the session does not end with this run")
        if (op.state == "completed") != (run.state is State.COMPLETED):
            raise Forbidden(f"a session does not become {op.state} when its run is {run.state.value}")
        self._witness.ended_session(op.state)
        self._tx.sessions.save(replace(session, state=op.state, updated_at=self._now))

    def take_message(self, run: Run, op: TakeMessage) -> None:
        """A message that waited has reached the run's present turn: as its beginning, or by a steer."""
        message = self._tx.queue.get(run.session_pk, MessageId(op.id))
        carried = any(request.body.get(MESSAGE) == op.id for request in steering(self._tx, run))
        if message.state == "sent" or not (carried or any(one.id == op.id for one in self._waiting(run))):
            raise Conflict("that message does not wait for this turn")
        # By the turn that was opened, not by the run: in the unit that begins a turn the run is saved last.
        turn = self._turn_number(run)
        self._tx.queue.save(replace(message, state="sent", run_id=run.id, turn=turn), self._now)
        self._witness.took(op.id, turn)

    def add_approval(self, run: Run, op: AddApproval) -> None:
        """A question to people, all of which but its words is the server's."""
        wanted = op.approval
        rules.check_question(wanted)
        approval_id = ApprovalId(check_id("apr", wanted.id))
        if _exists(lambda: self._tx.approvals.get(approval_id, None)):
            raise Conflict("there is such an approval already")
        turn, attempt = (run.turn, run.attempt) if run.turn else (None, None)
        self._check_open(run, turn, attempt, wanted.request)
        latest = self._now + LONGEST_WAIT_MS
        self._tx.approvals.add(
            replace(
                wanted, pk=0, id=approval_id, owner=run.owner, run_pk=run.pk, run_id=run.id,
                session_pk=run.session_pk, session_id=run.session_id, turn=turn, attempt=attempt,
                state="pending", decision=None, resolved_at=None, used_at=None,
                created_at=self._just_now(wanted.created_at),
                expires_at=max(self._now, min(wanted.expires_at, latest)),
                context=self._redactor.json(dict(wanted.context)), title=self._redactor.text(wanted.title),
            )
        )  # fmt: skip
        self._witness.asked(approval_id)

    def _check_open(self, run: Run, turn: int | None, attempt: int | None, request: str | None) -> None:
        if len(self._tx.approvals.pending(run.pk)) >= MOST_OPEN:
            raise Conflict(f"the run has {MOST_OPEN} open questions")
        if request is None or turn is None or attempt is None:
            return
        if self._tx.approvals.of_request(run.pk, turn, attempt, request) is not None:
            raise Conflict("the agent's request has its approval already")

    def shown(self, approval_id: str) -> dict[str, object]:
        """What the log says of a question that was just opened: what is stored, whatever its worker says."""
        return questions.shown(self._tx.approvals.get(ApprovalId(approval_id), None))

    def _just_now(self, at: int) -> int:
        """The worker's moment, if it can be believed: a question is as old as its way to us."""
        return at if self._now - LONGEST_WAY_MS <= at <= self._now else self._now

    def save_approval(self, run: Run, op: SaveApproval) -> None:
        """A question is withdrawn, or a decision is used (or was not used after all)."""
        approval = self._tx.approvals.get(ApprovalId(op.id), None)
        if approval.run_pk != run.pk:
            raise NotFound(f"no approval {op.id[:60]}")
        if op.cancelled:
            if approval.state != "pending":
                raise Conflict("what is decided cannot be withdrawn")
            self._witness.withdrew(approval.id)
            self._tx.approvals.save(replace(approval, state="cancelled", resolved_at=self._now))
        elif approval.state not in {"resolved", "expired"}:
            raise Conflict("nobody has decided that yet")
        else:
            self._tx.approvals.save(replace(approval, used_at=self._now if op.used else None))


def _exists(look: Callable[[], object]) -> bool:
    try:
        look()
    except NotFound:
        return False
    return True
