"""The parts of a remote transaction that are about the run's session, its messages and its approvals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overnight.client.worker.stage import Stage
from overnight.domain.approval import Approval
from overnight.domain.rule import Rule
from overnight.domain.session import Phase, QueuedMessage, Session, SessionMessage
from overnight.errors import NotFound, OvernightError
from overnight.ids import ApprovalId, MessageId, SessionId
from overnight.ports.remote import (
    AddApproval,
    Ask,
    EndSession,
    Remember,
    SaveApproval,
    Say,
    TakeMessage,
    Touch,
)


class RemoteSessions:
    """The session of the run, and no other."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def get(self, session_id: SessionId, owner: str | None) -> Session:  # noqa: ARG002 -- as the port names it
        """See the port; with variables and configuration."""
        found = self._stage.asked(Ask(what="session"))
        if not isinstance(found, Session) or found.id != session_id:
            raise NotFound(f"no session {session_id}")
        return found

    def lock(self, pk: int) -> Session:
        """See the port; without variables and configuration."""
        self._mine(pk)
        return self._stage.session

    def save(self, session: Session) -> None:
        """See the port: its state is all that a run may change."""
        if session.state not in {"completed", "suspended"}:
            raise OvernightError(f"a run does not make its session {session.state}")
        self._stage.ops.append(EndSession(state=session.state))
        self._stage.session = session

    def touch(self, pk: int, at: int, *, phase: Phase | None = None, step: int | None = None) -> None:  # noqa: ARG002
        """See the port; the server's time counts."""
        self._mine(pk)
        self._stage.ops.append(Touch(phase=phase, step=step))

    def add_message(self, pk: int, message: SessionMessage) -> None:
        """See the port."""
        self._mine(pk)
        self._stage.ops.append(Say(message=message))
        self._stage.messages += 1

    def messages(self, pk: int, last: int, before: int | None = None) -> tuple[SessionMessage, ...]:
        """See the port."""
        self._mine(pk)
        found: Any = self._stage.asked(Ask(what="messages", limit=last, before=before))
        return tuple(found)

    def message_count(self, pk: int) -> int:
        """See the port."""
        self._mine(pk)
        return self._stage.messages

    def backend_state(self, pk: int, backend: str) -> dict[str, object]:
        """See the port."""
        self._mine(pk)
        found: Any = self._stage.asked(Ask(what="state", id=backend))
        return dict(found or {})

    def save_backend_state(self, pk: int, backend: str, state: Mapping[str, object]) -> None:
        """See the port."""
        self._mine(pk)
        self._stage.ops.append(Remember(backend=backend, state=dict(state)))

    def _mine(self, pk: int) -> None:
        if pk != self._stage.session.pk:
            raise OvernightError(f"session {pk} is not the run's")


class RemoteQueue:
    """Messages that wait in the run's session."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def queued(self, session_pk: int, limit: int) -> tuple[QueuedMessage, ...]:  # noqa: ARG002 -- it is the run's
        """See the port; more than the first is never asked for."""
        return self._stage.queued[:limit]

    def get(self, session_pk: int, message_id: MessageId) -> QueuedMessage:  # noqa: ARG002 -- it is the run's
        """See the port."""
        known = next((one for one in self._stage.queued if one.id == message_id), None)
        found = known or self._stage.asked(Ask(what="message", id=message_id))
        if not isinstance(found, QueuedMessage):
            raise NotFound(f"no message {message_id}")
        return found

    def save(self, message: QueuedMessage, at: int) -> None:  # noqa: ARG002 -- the server's time counts
        """See the port: that it reached a turn is all that a run can say of it."""
        if message.state != "sent":
            raise OvernightError(f"a run does not make a message {message.state}")
        self._stage.ops.append(TakeMessage(id=message.id))
        self._stage.queued = tuple(one for one in self._stage.queued if one.id != message.id)


class RemoteApprovals:
    """Approvals of the run, and the rules of its session."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def add(self, approval: Approval) -> Approval:
        """See the port; its key is the server's and stays unknown."""
        self._stage.ops.append(AddApproval(approval=approval))
        self._stage.approvals = (*self._stage.approvals, approval)
        return approval

    def get(self, approval_id: ApprovalId, owner: str | None) -> Approval:  # noqa: ARG002 -- as the port names it
        """See the port."""
        known = next((one for one in self._stage.approvals if one.id == approval_id), None)
        found = known or self._stage.asked(Ask(what="approval", id=approval_id))
        if not isinstance(found, Approval):
            raise NotFound(f"no approval {approval_id}")
        return found

    def save(self, approval: Approval) -> None:
        """See the port: withdrawn, used, or not used after all. Decisions are people's."""
        op = SaveApproval(
            id=approval.id, cancelled=approval.state == "cancelled", used=approval.used_at is not None
        )
        self._stage.ops.append(op)
        if op.used:
            self._stage.used.add(approval.id)
        self._stage.approvals = tuple(
            approval if one.id == approval.id else one
            for one in self._stage.approvals
            if one.id != approval.id or approval.state == "pending"
        )

    def pending(self, run_pk: int) -> tuple[Approval, ...]:
        """See the port."""
        self._stage.about(run_pk)
        return self._stage.approvals

    def of_request(self, run_pk: int, turn: int, attempt: int, request: str) -> Approval | None:
        """See the port."""
        self._stage.about(run_pk)
        wanted = (turn, attempt, request)
        for known in self._stage.approvals:
            if (known.turn, known.attempt, known.request) == wanted:
                return known
        found: Any = self._stage.asked(Ask(what="approval_of", number=turn, attempt=attempt, id=request))
        return found if isinstance(found, Approval) else None

    def unused_allowance(self, run_pk: int, digest: str, *, turn: int, attempt: int) -> Approval | None:
        """See the port."""
        self._stage.about(run_pk)
        found: Any = self._stage.asked(Ask(what="allowance", id=digest, number=turn, attempt=attempt))
        # What this unit has used already covers nothing more; the server is asked about all else.
        return found if isinstance(found, Approval) and found.id not in self._stage.used else None

    def rules(self, session_pk: int) -> tuple[Rule, ...]:  # noqa: ARG002 -- it is the run's
        """See the port."""
        found: Any = self._stage.asked(Ask(what="rules"))
        return tuple(found or ())
