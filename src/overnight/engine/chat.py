"""Messages to sessions: each is durable before the answer, waits for its turn, and is said exactly once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.request import Principal, SteerHow, When
from overnight.domain.run import Run
from overnight.domain.session import MAX_QUEUED, QueuedMessage, Session
from overnight.domain.spec import RunSpec
from overnight.domain.states import FINAL, State
from overnight.engine.admission import Admitted
from overnight.engine.control import Control, Rules, control
from overnight.engine.policy import RunPolicy
from overnight.engine.repeats import check_same
from overnight.engine.service import RunService
from overnight.engine.session_moves import receive, reopened
from overnight.engine.waiting_messages import MESSAGE
from overnight.errors import MessageTaken
from overnight.ids import MessageId, SessionId
from overnight.ports.tables import Idempotency, RunFilter
from overnight.ports.unit_of_work import Transaction, UnitOfWork

LIVE: Final = tuple(state for state in State if state not in FINAL and state is not State.CANCELLING)
"""A run in one of these can still take a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A message that was accepted, and the run that takes it. `steer_how`: how one that is said now gets there."""

    message: QueuedMessage
    run: Run | None
    steer_how: SteerHow | None = None
    new: bool = True
    """False: an earlier request with the same Idempotency-Key posted it."""


class Chat:
    """What people say in sessions."""

    def __init__(
        self, *, uow: UnitOfWork, clock: Clock, runs: RunService, policy: RunPolicy, rules: Rules
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._runs = runs
        self._policy = policy
        self._rules = rules

    async def post(
        self,
        session_id: SessionId,
        text: str,
        when: When,
        by: Principal,
        *,
        idempotency: Idempotency | None = None,
    ) -> Posted:
        """Queue a message; a chat run is started when none is live. `now` is said in the live run at once, if any.

        Raises NotFound, SessionExpired, TooManyRequests (100 wait), IdempotencyKeyReused and all that `submit` raises.
        """
        admitted: Admitted | None = None
        while True:
            posted = await self._try(session_id, text, when, by, admitted, idempotency)
            if posted is not None:
                return posted
            # No run takes it: one is needed, and admitting it takes longer than a unit may.
            admitted = await self._runs.admit(await self._spec(session_id, text, by), by)

    async def queued(self, session_id: SessionId, by: Principal) -> tuple[QueuedMessage, ...]:
        """The messages that wait, oldest first. Raises NotFound."""

        def query(tx: Transaction) -> tuple[QueuedMessage, ...]:
            return tx.queue.queued(tx.sessions.get(session_id, by.owner).pk, MAX_QUEUED)

        return await self._uow.read(query)

    async def remove(self, session_id: SessionId, message_id: MessageId, by: Principal) -> None:
        """Take a waiting message back. Idempotent. Raises NotFound, MessageTaken once a turn has begun with it."""
        now = self._clock.wall_ms()
        await self._uow.write(lambda tx: _remove(tx, session_id, message_id, by, now))

    async def _spec(self, session_id: SessionId, text: str, by: Principal) -> RunSpec:
        session = await self._uow.read(lambda tx: tx.sessions.get(session_id, by.owner))
        own = self._policy.modes.get(session.mode)
        mode = own.id if own.base == "chat" else "chat"
        return RunSpec(goal=text, mode=mode, session_id=session.id)

    async def _try(
        self,
        session_id: SessionId,
        text: str,
        when: When,
        by: Principal,
        admitted: Admitted | None,
        idempotency: Idempotency | None,
    ) -> Posted | None:
        """None, and nothing is stored, when a run is needed and none was admitted."""

        def unit(tx: Transaction) -> Posted | None:
            session = tx.sessions.lock(tx.sessions.get(session_id, by.owner).pk)
            if idempotency and (earlier := _earlier(tx, session, by, idempotency)):
                return earlier
            self._runs.check_open()
            now = self._clock.wall_ms()
            live = _live(tx, session)
            chat = _conversing(live)
            target = (chat or live[-1]) if when == "now" and live else chat
            if target is None and admitted is None:
                return None
            session = reopened(tx, session, by, now)
            message = receive(tx, session, text, by, now)
            if idempotency:
                tx.keys.add(by.owner, idempotency, session.pk, message.id)
            how = None
            if target is None and admitted is not None:
                target, _ = self._runs.accept(tx, admitted, by, heard=True)
            elif target is not None and when == "now":
                target, how = self._say_now(tx, target, message, by, now)
            return Posted(message=message, run=target, steer_how=how)

        return await self._uow.write(unit)

    def _say_now(
        self, tx: Transaction, run: Run, message: QueuedMessage, by: Principal, now_ms: int
    ) -> tuple[Run, SteerHow | None]:
        """Into the live run; the message waits until the agent has it, and goes on waiting should the run end first."""
        locked = tx.runs.lock(run.pk)
        asked = Control(action="steer", text=message.text, when="now", extra={MESSAGE: message.id})
        return control(tx, locked, asked, by, now_ms=now_ms, rules=self._rules)


def _live(tx: Transaction, session: Session) -> tuple[Run, ...]:
    """The session's runs that are not final, newest first."""
    return tx.runs.page(RunFilter(session_id=session.id, states=LIVE), limit=MAX_QUEUED).runs


def _conversing(runs: tuple[Run, ...]) -> Run | None:
    """The chat run among them."""
    return next((run for run in runs if run.spec.mode == "chat"), None)


def _earlier(tx: Transaction, session: Session, by: Principal, asked: Idempotency) -> Posted | None:
    found = tx.keys.find(by.owner, asked.route, asked.key)
    if found is None:
        return None
    check_same(found[0], asked, message_id=found[1])
    message = tx.queue.get(session.pk, MessageId(found[1]))
    taken = RunFilter(session_id=session.id, ids=(message.run_id,)) if message.run_id else None
    run = next(iter(tx.runs.page(taken, limit=1).runs), None) if taken else _conversing(_live(tx, session))
    return Posted(message=message, run=run, new=False)


def _remove(
    tx: Transaction, session_id: SessionId, message_id: MessageId, by: Principal, now_ms: int
) -> None:
    session = tx.sessions.lock(tx.sessions.get(session_id, by.owner).pk)
    message = tx.queue.get(session.pk, message_id)
    if message.state == "sent":
        raise MessageTaken(
            f"a turn has begun with {message.id}",
            mend="interrupt the run instead",
            extra={"run_id": message.run_id, "turn": message.turn},
        )
    if message.state == "removed":
        return
    tx.queue.save(replace(message, state="removed"), now_ms)
    for run in _live(tx, session):
        for request in tx.requests.pending(run.pk):
            if request.body.get(MESSAGE) == message.id:
                tx.requests.settle(request.pk, "the message was taken back", now_ms)
    data = {"message_id": message.id, "by": by.name}
    tx.events.append(session.pk, [Draft(type="session.message_removed", data=data)], now_ms)


__all__ = ["Chat", "Posted"]
