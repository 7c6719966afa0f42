"""The receiving half of an open connection: every message is taken, answered with a nack, or dropped and counted."""

from __future__ import annotations

from typing import Any, Final

from overnight.errors import (
    CreditExceeded,
    InvalidPayload,
    OvernightError,
    ProtocolError,
    ScopeExists,
    ScopeOver,
    SequenceGap,
    StreamTrimmed,
    TooManyRequests,
    UnexpectedType,
    UnknownScope,
    UnknownType,
)
from overnight.wire.socket.catalog.message import MessageType, Side
from overnight.wire.socket.envelope import CONN, Envelope, Malformed, kind_of
from overnight.wire.socket.events import Closing, Event, Granted, Over, Received, Refused
from overnight.wire.socket.scope import REOPENING, SURVIVING, Scope, Scopes
from overnight.wire.socket.sender import Sender
from overnight.wire.socket.sequence import Sequence

_LATE: Final = frozenset({"reply", "terminal"})
"""Roles of messages that say nothing any more once their scope is gone: they are dropped."""
_GREETING: Final = frozenset({"hello", "welcome"})


class Receiver:
    """Judges what comes, in this order: sequence, type, direction, payload. Never raises."""

    def __init__(self, side: Side, scopes: Scopes, sender: Sender) -> None:
        self.dropped = 0
        self.sequence = Sequence()
        """That of `conn`."""
        self._side: Side = side
        self._other: Side = "server" if side == "client" else "client"
        self._scopes = scopes
        self._sender = sender
        self.broken: Closing | None = None
        """The numbering of the control lane is beyond repair."""

    def restart(self) -> None:
        """Another transport."""
        self.sequence = Sequence()
        self.broken = None

    def malformed(self, one: Malformed, now_ms: int) -> list[Event]:
        """What could not be read as an envelope."""
        known = self._sender.catalog.get(one.type)
        if known is None or known.role != "reply":  # a nack to a nack could go on for ever
            return self._nack(one.error, CONN, one.id, one.type, now_ms)
        self.dropped += 1
        return [Refused(error=one.error, scope=one.scope, id=one.id)]

    def take(self, one: Envelope, size: int, now_ms: int) -> list[Event]:
        """An envelope, which came in about so many bytes."""
        message = self._sender.catalog.get(one.type)
        if one.scope == CONN:
            return self._on_conn(one, message, now_ms)
        scope = self._scopes.get(one.scope)
        if scope is None:
            return self._without_scope(one, message, now_ms)
        return self._in_scope(scope, one, message, size, now_ms)

    # The control lane.

    def _on_conn(self, one: Envelope, message: MessageType | None, now_ms: int) -> list[Event]:
        if (refused := self.sequence.check(one.seq)) is not None:
            if self._side == "client":
                self.broken = Closing(code=1002, reason=refused.detail)
                return [self.broken]
            return self._nack(refused, CONN, one.id, one.type, now_ms)
        checked = self._checked(one, message, CONN)
        if isinstance(checked, OvernightError) or message is None:
            self.sequence.refuse(one.seq)
            return self._nack(_error(checked), CONN, one.id, one.type, now_ms)
        self.sequence.accept(one.seq)
        if message.role == "request":
            self._sender.asked[one.id] = CONN
        received = _received(one, checked, message)
        return self._controlled(received, now_ms)

    def _controlled(self, received: Received, now_ms: int) -> list[Event]:
        """The messages of the connection that are dealt with here; the others are passed on."""
        one, body = received.envelope, received.envelope.body
        match one.type:
            case "ping":
                self._sender.control("pong", {}, now_ms, one.id)
                return []
            case "pong":
                return []
            case "credit":
                return self._granted(body.scope, body.messages)
            case "gap":
                self._sender.drop(body.scope)
                told = {"earliest": body.earliest, "latest": body.latest}
                return [
                    Over(
                        scope=body.scope, error=StreamTrimmed("the scope cannot go on from there", extra=told)
                    )
                ]
            case _:
                return [received, *self._opener_answered(one)]

    def _granted(self, name: str, count: int) -> list[Event]:
        scope = self._scopes.sending(name)
        if scope is None:
            self._scopes.settled(name)
            return []
        scope.outbox.granted(count)
        self._sender.wake(scope)
        return [Granted(scope=name)]

    def _opener_answered(self, one: Envelope) -> list[Event]:
        """A reply may be that to a message which has opened a scope; a nack then undoes it."""
        name = self._sender.opened.pop(one.reply_to, None) if one.reply_to is not None else None
        if name is None or one.type != "nack":
            return []
        self._sender.drop(name, bury=False)
        self._confirm(name, one.ts)
        return [Over(scope=name)]

    # Scopes that are not open.

    def _without_scope(self, one: Envelope, message: MessageType | None, now_ms: int) -> list[Event]:
        over = self._scopes.over(one.scope)
        kind = kind_of(one.scope)
        if message is not None and kind in message.kinds and message.may_send(self._other):
            if message.opens and not (over and (kind not in REOPENING or self._scopes.sending(one.scope))):
                return self._opening(one, message, now_ms)
            if message.settles:
                self._sender.asked[one.id] = CONN
                self._sender.queue(CONN, "ack", {}, now_ms=now_ms, reply_to=one.id)
                return []
        if message is not None and (message.role in _LATE or (over and message.role != "request")):
            self.dropped += 1
            if (
                over and message.role == "terminal"
            ):  # both sides have ended it, so neither waits for the other
                self._scopes.settled(one.scope)
                self._confirm(one.scope, now_ms)
            return []
        error = ScopeOver(f"{one.scope} is over") if over else UnknownScope(f"{one.scope} is not open here")
        return self._nack(error, CONN, one.id, one.type, now_ms)

    def _opening(self, one: Envelope, message: MessageType, now_ms: int) -> list[Event]:
        refused: Any = Sequence().check(one.seq)
        if refused is None and len(self._scopes) >= self._sender.limits.scopes:
            refused = TooManyRequests(f"{self._sender.limits.scopes} scopes are open already")
        checked = refused or self._checked(one, message, kind_of(one.scope))
        if isinstance(checked, OvernightError):
            return self._nack(checked, CONN, one.id, one.type, now_ms)
        scope = self._sender.open_theirs(one.scope, one.id, getattr(checked, "flow", None))
        scope.sequence.accept(one.seq)
        scope.arrived = 1
        self._sender.asked[one.id] = one.scope
        return [_received(one, checked, message, opened=True)]

    # Scopes that are open.

    def _in_scope(
        self, scope: Scope, one: Envelope, message: MessageType | None, size: int, now_ms: int
    ) -> list[Event]:
        if (refused := scope.sequence.check(one.seq)) is not None:
            if message is not None and message.opens and one.seq == 1:
                refused = ScopeExists(f"{scope.name} is open already")
                return self._nack(refused, CONN, one.id, one.type, now_ms)
            lost = isinstance(refused, SequenceGap) and (message is None or message.role != "request")
            return self._refuse(scope, one, refused, now_ms, fatal=lost)
        checked = self._checked(one, message, scope.kind)
        if message is not None and message.opens:
            checked = ScopeExists(f"{scope.name} is open already")
        if isinstance(checked, OvernightError) or message is None:
            scope.sequence.refuse(one.seq)
            fatal = message is not None and message.role == "terminal"
            return self._refuse(scope, one, _error(checked), now_ms, fatal=fatal)
        return self._accepted(scope, one, checked, message, size, now_ms)

    def _accepted(
        self, scope: Scope, one: Envelope, body: Any, message: MessageType, size: int, now_ms: int
    ) -> list[Event]:
        scope.sequence.accept(one.seq)
        scope.arrived += 1
        if message.spends:
            scope.intake.arrived(size)
            if scope.intake.held > scope.intake.window + self._sender.limits.queue:
                error = CreditExceeded(f"{scope.intake.window} events were granted in {scope.name}")
                return self._refuse(scope, one, error, now_ms, fatal=True)
        elif message.role == "request":
            self._sender.asked[one.id] = scope.name
        events: list[Event] = [_received(one, body, message)]
        if message.role == "terminal":
            self._end(scope, now_ms)
            events.append(Over(scope=scope.name))
        return events + self._opener_answered(one)

    def _end(self, scope: Scope, now_ms: int) -> None:
        self._sender.drop(scope.name)
        self._confirm(scope.name, now_ms)

    def _confirm(self, name: str, now_ms: int) -> None:
        """Let the other side forget what it keeps of the scope in case of a cut."""
        if kind_of(name) in SURVIVING:
            self._sender.control("credit", {"scope": name, "messages": 0}, now_ms)

    # Refusing.

    def _checked(self, one: Envelope, message: MessageType | None, kind: str) -> Any:
        """The payload as its type wants it, or the error to refuse it with."""
        if message is None or kind not in message.kinds:
            return UnknownType(f"{one.type} is no message of {kind}")
        if not message.may_send(self._other) or message.name in _GREETING:
            return UnexpectedType(f"{one.type} is not expected from you here")
        if message.role == "request":
            if len(self._sender.asked) >= self._sender.limits.requests:
                return TooManyRequests(f"{self._sender.limits.requests} requests have no reply yet")
            if one.id in self._sender.asked:
                return InvalidPayload("/id is that of another request", extra={"pointer": "/id"})
        try:
            return message.check(one.payload)
        except InvalidPayload as error:
            return error

    def _refuse(
        self, scope: Scope, one: Envelope, error: OvernightError, now_ms: int, *, fatal: bool
    ) -> list[Event]:
        """Answer with a nack in the scope. `fatal`: what is lost cannot be had again, so the scope is over."""
        where = CONN if fatal else scope.name
        events = self._nack(error, where, one.id, one.type, now_ms)
        if fatal:
            self._sender.drop(scope.name)
            events.append(Over(scope=scope.name, error=error))
        return events

    def _nack(self, error: OvernightError, scope: str, id_: str, type_: str, now_ms: int) -> list[Event]:
        if type_ not in ("nack", "ack"):
            self._sender.nack(error, scope, id_ or None, type_, now_ms)
        else:
            self.dropped += 1
        return [Refused(error=error, scope=scope, id=id_)]


def _received(one: Envelope, body: Any, message: MessageType, *, opened: bool = False) -> Received:
    object.__setattr__(one, "body", body)  # nobody else has seen it yet
    return Received(envelope=one, message=message, opened=opened)


def _error(checked: Any) -> OvernightError:
    return checked if isinstance(checked, OvernightError) else ProtocolError()
