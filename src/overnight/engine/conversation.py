"""A chat run's turns: what each begins with, and whether another one follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overnight.domain.request import Request
from overnight.domain.run import Run
from overnight.domain.session import QueuedMessage, SessionMessage
from overnight.engine.follow_requests import steering, text_of
from overnight.engine.waiting_messages import taken
from overnight.ports.unit_of_work import Transaction


class Outdated(Exception):
    """Not an error: a message was taken back, or came, while the turn was being put together; look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a turn says. `message` is taken from the queue as it begins; `history` is what was said before."""

    texts: tuple[str, ...]
    history: tuple[SessionMessage, ...]
    message: QueuedMessage | None = None

    def still_wait(self, tx: Transaction, run: Run) -> bool:
        """Whether the turn may begin like this: its message waits still, or nothing waits when there is none."""
        if self.message is not None:
            return _is_queued(tx, self.message)
        return bool(self.texts) or not waits(tx, run)

    def take(self, tx: Transaction, run: Run, now_ms: int) -> None:
        """The message becomes part of the history with the turn of `run` that begins."""
        if self.message is not None:
            said = SessionMessage(
                role="user", text=self.message.text, at=now_ms, run_id=run.id, turn=run.turn
            )
            tx.sessions.add_message(run.session_pk, said)
            taken(tx, run, self.message, now_ms)


def words(
    tx: Transaction, run: Run, steers: Sequence[Request], history: tuple[SessionMessage, ...], *, redo: bool
) -> Words:
    """What the next turn of a chat run begins with. `redo`: the last turn did not come to its end.

    What a person has sent into the run goes first and alone. Else a turn that was cut off is done again with its own
    words, and else the message that has waited longest is taken.
    """
    asked = tuple(text_of(request) for request in steers)
    if redo and not any(request.kind == "steer" for request in steers):
        again, before = _last_said(run, history)
        if again:
            return Words(texts=(*again, *asked), history=before)
    if any(request.kind == "steer" for request in steers):
        return Words(texts=asked, history=history)
    message = next(iter(tx.queue.queued(run.session_pk, 1)), None)
    texts = asked if message is None else (*asked, message.text)
    return Words(texts=texts, history=history, message=message)


def waits(tx: Transaction, run: Run) -> bool:
    """Whether a chat run has something to begin a turn with."""
    return bool(tx.queue.queued(run.session_pk, 1)) or bool(steering(tx, run))


def _is_queued(tx: Transaction, message: QueuedMessage) -> bool:
    return tx.queue.get(message.session_pk, message.id).state == "queued"


def _last_said(
    run: Run, history: tuple[SessionMessage, ...]
) -> tuple[tuple[str, ...], tuple[SessionMessage, ...]]:
    """The last words of a person in this run, and the history without them."""
    mine = [message for message in history if message.run_id == run.id and message.role == "user"]
    if not mine:
        return (), history
    last = [message for message in mine if message.turn == mine[-1].turn]
    return tuple(message.text for message in last), tuple(one for one in history if one not in last)
