"""The moves of a session that several callers make: state and event in one transaction.

Each takes the session as it is locked in that transaction and gives it back as it is after the move.
"""

from __future__ import annotations

from dataclasses import replace

from overnight.domain.event import Draft
from overnight.domain.request import Principal
from overnight.domain.session import MAX_QUEUED, QueuedMessage, Session, SessionInput, next_state
from overnight.errors import NotFound, TooManyRequests
from overnight.ids import SessionId, new_message_id
from overnight.ports.unit_of_work import Transaction

_TOLD = {"suspended": "session.suspended", "active": "session.resumed", "expired": "session.expired"}


def move(tx: Transaction, session: Session, input: SessionInput, by: Principal, now_ms: int) -> Session:
    """Advance the state; what leads back to the same one is recorded by nobody. Raises Conflict, SessionExpired."""
    state = next_state(session, input)
    if state == session.state:
        return session
    moved = replace(session, state=state, updated_at=now_ms)
    tx.sessions.save(moved)
    tx.events.append(session.pk, [Draft(type=_TOLD[state], data={"by": by.name})], now_ms)
    return moved


def reopened(tx: Transaction, session: Session, by: Principal, now_ms: int) -> Session:
    """A new message or run: a session that was suspended or completed is active again. Raises SessionExpired."""
    moved = move(tx, session, "resume", by, now_ms)
    tx.sessions.touch(session.pk, now_ms)
    return moved


def receive(tx: Transaction, session: Session, text: str, by: Principal, now_ms: int) -> QueuedMessage:
    """A message that waits for its turn from now on. Raises TooManyRequests when too many wait."""
    if len(tx.queue.queued(session.pk, MAX_QUEUED)) >= MAX_QUEUED:
        raise TooManyRequests(
            f"{MAX_QUEUED} messages of {session.id} wait already",
            mend="wait for their turns, or remove some",
            extra={"retry_after_s": 5},
        )
    message = tx.queue.add(
        QueuedMessage(
            pk=0,
            id=new_message_id(now_ms),
            session_pk=session.pk,
            text=text,
            by=by.name,
            created_at=now_ms,
        )
    )
    data = {"message_id": message.id, "text": text, "by": by.name}
    tx.events.append(session.pk, [Draft(type="session.message_received", data=data)], now_ms)
    return message


def session_is_gone(tx: Transaction, session_id: SessionId) -> bool:
    """Whether it went with the last run in it."""
    try:
        tx.sessions.get(session_id, None)
    except NotFound:
        return True
    return False
