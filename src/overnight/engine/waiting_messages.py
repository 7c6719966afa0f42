"""Messages that wait in a session: how one gets to an agent."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from overnight.domain.event import Draft
from overnight.domain.request import Request
from overnight.domain.run import Run
from overnight.domain.session import QueuedMessage
from overnight.errors import NotFound
from overnight.ids import MessageId
from overnight.ports.unit_of_work import Transaction

MESSAGE: Final = "message_id"
"""Member of a steer's body: the waiting message whose text it carries into the run at once."""


def taken(tx: Transaction, run: Run, message: QueuedMessage, now_ms: int) -> None:
    """The present turn of `run` has the message: it waits no longer."""
    turn = run.turn or None
    tx.queue.save(replace(message, state="sent", run_id=run.id, turn=turn), now_ms)
    data = {"message_id": message.id, "run_id": run.id, "turn": turn}
    tx.events.append(run.session_pk, [Draft(type="session.message_taken", data=data)], now_ms)


def carried_in(tx: Transaction, run: Run, request: Request, now_ms: int) -> None:
    """A steer has reached the agent: where it was a message that waited, that one waits no longer.

    One that was taken back while it was on its way has been said all the same, and is shown so.
    """
    message = _carried(tx, run, request)
    if message is not None and message.state != "sent":
        taken(tx, run, message, now_ms)


def taken_back(tx: Transaction, run: Run, request: Request) -> bool:
    """Whether a steer carries a message that its sender wants back: then it must not be said any more."""
    message = _carried(tx, run, request)
    return message is not None and message.state == "removed"


def _carried(tx: Transaction, run: Run, request: Request) -> QueuedMessage | None:
    message_id = request.body.get(MESSAGE)
    if not isinstance(message_id, str):
        return None
    try:
        return tx.queue.get(run.session_pk, MessageId(message_id))
    except NotFound:
        return None
