"""What the events of a batch tell, and whether the rest of the batch bears it out. Pure bookkeeping.

Every move has its event and every such event its move, in the same batch: a log that tells what did not happen is as
wrong as one that is silent about what did.
"""

from __future__ import annotations

from overnight.domain.event import Draft
from overnight.domain.run import Run, Turn
from overnight.engine.remote import rules
from overnight.errors import Forbidden


class Witness:
    """Of one batch."""

    def __init__(self) -> None:
        self._said: list[str] = []
        """Events of moves whose move is still to come."""
        self._ends: list[str] = []
        """Events of turns that are still to end."""
        self._begun: int | None = None
        """Number of a `turn.started` whose turn does not know it yet."""
        self._asked: set[str] = set()
        """Approvals that were opened, and no event has told of it."""
        self._withdrawn: set[str] = set()
        """Approvals that were withdrawn, and no event has told of it."""
        self._taken: dict[str, int | None] = {}
        """Messages that were taken, by which turn, and no event has told of it."""
        self._session_end: str | None = None
        """How the session ended, where no event has told of it."""
        self._unsettled = False
        """The run has ended, and its session does not know it."""

    def note(self, draft: Draft, turn: Turn | None, seq: int) -> None:
        """An event of the run's own log, that will have this number. Raises Forbidden for what is not so."""
        if self._said and rules.is_end(self._said[-1]):
            raise Forbidden(f"{self._said[-1]} is the last event of a run")
        type, data = draft.type, draft.data
        if type in rules.SAID:
            self._said.append(type)
        elif type.startswith("turn."):
            self._turn_event(draft, turn, seq)
        elif type == "approval.requested":
            _strike(self._asked, data.get("approval_id"), type)
        elif type == "approval.cancelled":
            _strike(self._withdrawn, data.get("approval_id"), type)
        elif type == "approval.resolved" and (data.get("by"), data.get("approval_id")) != ("rule", None):
            raise Forbidden("a worker decides nothing: only a rule's decision is its to write down")

    def _turn_event(self, draft: Draft, turn: Turn | None, seq: int) -> None:
        place = (turn.number, turn.attempt) if turn is not None else None
        if (draft.turn, draft.attempt) != place or draft.data.get("turn") != draft.turn:
            raise Forbidden(f"{draft.type} is about another turn than the present one")
        if draft.type != "turn.started":
            self._ends.append(draft.type)
        elif turn is None or turn.first_seq or self._begun is not None:
            raise Forbidden("a turn begins once")
        else:
            self._begun = seq

    def moving(self) -> str | None:
        """The run is saved: the event that has told of it, if one has."""
        return self._said.pop(0) if self._said else None

    def moved(self, before: Run, after: Run) -> None:
        """It is saved."""
        self._unsettled |= after.final and not before.final

    def turn_saved(self, before: Turn, after: Turn) -> None:
        """Raises Forbidden where a turn begins or ends, and its event has not said so, or something else."""
        if after.state is not before.state:
            type = f"turn.{after.state.value}"
            if self._ends[:1] != [type]:
                raise Forbidden(f"a turn that is {after.state.value} needs the event {type}")
            del self._ends[0]
        if after.first_seq != before.first_seq:
            if before.first_seq or after.first_seq != self._begun:
                raise Forbidden("a turn begins with its event turn.started, and once")
            self._begun = None

    def asked(self, approval_id: str) -> None:
        """A question was opened."""
        self._asked.add(approval_id)

    def withdrew(self, approval_id: str) -> None:
        """A question was withdrawn."""
        self._withdrawn.add(approval_id)

    def took(self, message_id: str, turn: int | None) -> None:
        """A message that waited has reached the turn."""
        self._taken[message_id] = turn

    def ended_session(self, state: str) -> None:
        """The session ended with the run."""
        self._session_end = state

    def tell_session(self, draft: Draft, run: Run) -> dict[str, object]:
        """What the session is told, in our words. Raises Forbidden for what is not so, or was told before."""
        type = draft.type
        if type == "run.settled" and self._unsettled:
            self._unsettled = False
            return {"run_id": run.id, "state": run.state.value}
        if self._session_end is not None and type == f"session.{self._session_end}":
            self._session_end = None
            return {"by": run.id}
        message_id = draft.data.get("message_id")
        if type == "session.message_taken" and message_id in self._taken:
            return {"message_id": message_id, "run_id": run.id, "turn": self._taken.pop(str(message_id))}
        raise Forbidden(f"{type[:80]!r} is not this run's to write")

    def check(self) -> None:
        """The batch is at its end. Raises Forbidden where something was said and not done, or done and not said."""
        if self._said:
            raise Forbidden(f"{self._said[0]} says that the run moves, and it does not")
        if self._ends or self._begun is not None:
            raise Forbidden("an event tells of a turn's beginning or end that the batch does not hold")
        if self._asked or self._withdrawn or self._taken or self._session_end or self._unsettled:
            raise Forbidden("something was done that no event tells of")


def _strike(pending: set[str], id: object, type: str) -> None:
    if not isinstance(id, str) or id not in pending:
        raise Forbidden(f"{type} tells of something that the batch does not hold")
    pending.remove(id)
