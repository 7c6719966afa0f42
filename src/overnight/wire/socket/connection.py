"""One side of a connection, without I/O: bytes in, events out; messages in, bytes out. Time is passed in.

`now_ms` are Unix milliseconds of a clock that does not jump. Nothing that the other side sends makes `receive` raise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

from overnight.errors import Disconnected, InvalidPayload, OvernightError, UnexpectedType, VersionMismatch
from overnight.wire.socket.catalog import CATALOG
from overnight.wire.socket.catalog.control import Arrived
from overnight.wire.socket.catalog.message import Flow, MessageType, Side
from overnight.wire.socket.envelope import CONN, VERSION, Envelope, Malformed, decode
from overnight.wire.socket.events import Closing, Event, Over, Received, Refused
from overnight.wire.socket.limits import Limits
from overnight.wire.socket.liveness import Liveness
from overnight.wire.socket.receiver import Receiver
from overnight.wire.socket.resumption import arrived, go_on
from overnight.wire.socket.scope import Scopes
from overnight.wire.socket.sender import Sender

State = Literal["new", "greeting", "open", "cut", "closed"]


def counting(prefix: str) -> Callable[[], str]:
    """Ids that are unique per sender and connection, and short."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers)}"


class Connection:
    """One side. A client begins with `hello`; a server answers the hello that it has received with `welcome`."""

    def __init__(
        self, side: Side, limits: Limits | None = None, *, new_id: Callable[[], str] | None = None,
        catalog: Mapping[str, MessageType] = CATALOG,
    ) -> None:  # fmt: skip
        self.side: Side = side
        self.limits = limits or Limits()
        self.catalog = catalog
        self.state: State = "new"
        self.scopes = Scopes(self.limits)
        self._sender = Sender(self.scopes, self.limits, new_id=new_id or counting(side[0]), catalog=catalog)
        self._receiver = Receiver(side, self.scopes, self._sender)
        self._liveness = Liveness(self.limits.ping_s * 1000)
        self._cut_at = 0

    # Greeting.

    def hello(self, payload: Mapping[str, Any], now_ms: int) -> None:
        """Client: begin on a new transport. With `resume` in the payload, `received` is filled in."""
        self._begin()
        self.state = "greeting"
        told = {"versions": [VERSION], **payload}
        if told.get("resume") is not None:
            told["received"] = arrived(self.scopes)
        self._sender.greet("hello", told, now_ms)

    def welcome(self, payload: Mapping[str, Any], now_ms: int, *, hello: Envelope) -> list[Event]:
        """Server: let the peer in that has said this hello, even to another `Connection`.

        With `resumed: True` the scopes that outlived the cut go on; otherwise they are over.
        """
        self._begin()
        self._receiver.sequence.accept(hello.seq)
        resumed = bool(payload.get("resumed"))
        told = {"version": VERSION, "capabilities": {}, "limits": self.limits.as_payload(), **payload}
        if resumed:
            told["received"] = arrived(self.scopes)
        self._sender.greet("welcome", told, now_ms, hello.id)
        self.state = "open"
        self._liveness.heard(now_ms)
        return self._go_on(hello.body.received if resumed else None, now_ms)

    def _begin(self) -> None:
        self._receiver.restart()
        self._sender.restart(keep_control=self.state == "new")
        self._liveness = Liveness(self.limits.ping_s * 1000)

    def _welcomed(self, one: Envelope, message: MessageType, now_ms: int) -> list[Event]:
        try:
            self.limits = Limits.from_payload(one.body.limits)
        except InvalidPayload as error:
            return [self._close(1002, error.detail)]
        self.scopes.limits = self._sender.limits = self.limits
        self._liveness = Liveness(self.limits.ping_s * 1000)
        self._liveness.heard(now_ms)
        self.state = "open"
        received = Received(envelope=one, message=message)
        return [received, *self._go_on(one.body.received if one.body.resumed else None, now_ms)]

    def _go_on(self, known: Mapping[str, Arrived] | None, now_ms: int) -> list[Event]:
        """On a new transport: send again what has not arrived; what nobody knows any more is over."""
        return [self._lose(name) for name in go_on(self.scopes, self._sender, known, now_ms)]

    def _lose(self, name: str) -> Over:
        self._sender.drop(name)
        return Over(scope=name, error=Disconnected(f"{name} was cut off and could not be taken up again"))

    # The end of a transport.

    def cut(self, now_ms: int) -> list[Event]:
        """The transport is gone. Scopes with a log are over here; the others wait for `hello`, or for `tick`."""
        if self.state == "closed":
            return self.part(now_ms)
        self.state = "cut"
        self._cut_at = now_ms
        events: list[Event] = [self._lose(one.name) for one in self.scopes if not one.survives]
        self._sender.restart()
        return events

    def part(self, now_ms: int) -> list[Event]:
        """The transport ended in order, or for a reason that coming back does not mend: nothing outlives it.

        The connection may begin anew with another hello.
        """
        events = self.close()
        self.state, self._cut_at = "cut", now_ms
        self._sender.restart()
        return events

    def close(self) -> list[Event]:
        """It is over for good; so is every scope."""
        self.state = "closed"
        over: list[Event] = [self._lose(one.name) for one in self.scopes]
        for one in self.scopes.surviving():
            self.scopes.settled(one.name)
        return over

    @property
    def survives(self) -> bool:
        """Whether anything of it outlives a cut."""
        return self.state != "closed" and bool(self.scopes.surviving())

    def deadline(self, now_ms: int) -> int:
        """When `tick` wants to be called, at the latest."""
        if self.state == "cut":
            return self._cut_at + self.limits.resume_s * 1000
        return self._liveness.deadline(now_ms)

    def tick(self, now_ms: int) -> list[Event]:
        """Time has passed: ping a quiet peer, give up a dead one, and end what has outlived a cut for too long."""
        if self.state == "cut":
            return self.close() if now_ms >= self.deadline(now_ms) else []
        if self.state != "open":
            return []
        match self._liveness.tick(now_ms):
            case "ping":
                self._sender.control("ping", {}, now_ms)
            case "dead":
                return [Closing(code=1011, reason="ping_timeout")]
            case "fine":
                pass
        return []

    # Sending.

    def queue(
        self,
        scope: str,
        type: str,
        payload: Mapping[str, Any] | bytes,
        *,
        now_ms: int,
        reply_to: str | None = None,
    ) -> str | None:
        """The id of the message, which will be sent in its turn; None: no room, try again when there is some.

        `payload` may hold `orjson.Fragment`s, or be JSON itself, as bytes. An opening message opens its scope; a
        terminal ends it. A transient message without credit is dropped, which is None as well. Raises ScopeOver when
        nothing may be sent in the scope, TooSlow when it was to fail and has, BodyTooLarge, and ProtocolError for the
        second reply to a request.
        """
        if self.state == "closed":
            raise Disconnected("the connection is over")
        if not self.catalog[type].may_send(self.side):
            raise UnexpectedType(f"a {self.side} does not send {type}")
        return self._sender.queue(scope, type, payload, now_ms=now_ms, reply_to=reply_to)

    def data_to_send(self, most_bytes: int | None = None) -> list[bytes]:
        """Messages for the transport: the control lane first, then every scope in turn, as far as its credit goes.

        `most_bytes`: about how much of the scopes' messages to take now; ask again until nothing comes.
        """
        return self._sender.data_to_send(all_lanes=self.state == "open", most_bytes=most_bytes)

    def open(self, scope: str, flow: Flow | None = None) -> None:
        """Open a scope without a message of its own, as `resume` does on both sides."""
        if self.side == "client":
            self._sender.open_mine(scope, flow)
        elif self.scopes.get(scope) is None:
            self._sender.open_theirs(scope, None, flow)

    def room(self, scope: str) -> bool:
        """Whether `queue` would take an event of the scope, or refuse it for another reason than room."""
        found = self.scopes.get(scope)
        return found is None or self._sender.has_room(found)

    def answered(self, request: str) -> bool:
        """Whether a request of the other side has had its reply."""
        return request not in self._sender.asked

    @property
    def dropped(self) -> int:
        """Messages that came and were nobody's any more: late ones, and replies that could not be read."""
        return self._receiver.dropped

    @property
    def unanswered(self) -> int:
        """Requests of the other side that have no reply yet."""
        return len(self._sender.asked)

    @property
    def congested(self) -> bool:
        """Read nothing more until what waits in the control lane is sent."""
        return self._sender.congested

    @property
    def waiting(self) -> int:
        """Messages that are queued, those without credit among them."""
        return self._sender.waiting

    def consumed(self, scope: str, count: int, now_ms: int) -> bool:
        """So many events of the scope are done with; True when that granted more, which is to be sent."""
        found = self.scopes.get(scope)
        grant = found.intake.consume(count) if found is not None else 0
        # Between a cut and the next hello nothing is granted: the hello tells the whole credit.
        if not grant or not (self.state == "open" or (self.state == "greeting" and self.side == "client")):
            return False
        self._sender.control("credit", {"scope": scope, "messages": grant}, now_ms)
        return True

    def fail(self, scope: str, error: OvernightError, now_ms: int) -> None:
        """End the scope with the terminal by which its kind says that it failed; what waits for credit is dropped."""
        found = self.scopes.get(scope)
        if found is not None:
            self._sender.fail(found, error, now_ms)

    def forget(self, scope: str) -> None:
        """Have no more to do with the scope: later messages of it are dropped, and nothing more is sent."""
        self._sender.drop(scope)

    # Receiving.

    def receive(self, data: bytes | str, now_ms: int) -> list[Event]:
        """What a message of the transport holds. Nacks, pongs and grants are queued by itself."""
        if self.state == "closed":
            return []
        self._liveness.heard(now_ms)
        if len(data) > self.limits.max_message_bytes:
            return [self._close(1009, f"a message is at most {self.limits.max_message_bytes} bytes")]
        found = decode(data, max_batch=self.limits.max_batch)
        if self.state != "open":
            return self._greeted(found, now_ms)
        return self._taken(found, len(data) // len(found), now_ms)

    def _taken(self, found: list[Envelope | Malformed], size: int, now_ms: int) -> list[Event]:
        events: list[Event] = []
        for one in found:
            if isinstance(one, Envelope):
                events += self._receiver.take(one, size, now_ms)
            else:
                events += self._receiver.malformed(one, now_ms)
        if self._receiver.broken is not None:
            self.state = "closed"
        return events

    def _greeted(self, found: list[Envelope | Malformed], now_ms: int) -> list[Event]:
        """The first message of the peer, and what is more than that of a message which begins with it."""
        one = found[0]
        if isinstance(one, Malformed):
            return self._turn_away(one.error, one.id or None, now_ms)
        wanted = "hello" if self.side == "server" else "welcome"
        if self.side == "client" and one.type == "nack":
            return [
                Received(envelope=one, message=self.catalog["nack"]),
                self._close(1008, "hello was refused"),
            ]
        if one.type != wanted or one.scope != CONN or self._receiver.sequence.check(one.seq) is not None:
            return self._turn_away(UnexpectedType(f"the first message is {wanted}"), one.id, now_ms)
        message = self.catalog[wanted]
        try:
            body = message.check(one.payload)
        except InvalidPayload as error:
            return self._turn_away(error, one.id, now_ms)
        object.__setattr__(one, "body", body)  # nobody else has seen it yet
        self._receiver.sequence.accept(one.seq)
        if wanted == "hello":
            return self._hello(one, message, len(found), now_ms)
        return self._welcomed(one, message, now_ms) + self._taken(found[1:], 0, now_ms)

    def _hello(self, one: Envelope, message: MessageType, count: int, now_ms: int) -> list[Event]:
        if VERSION not in one.body.versions:
            extra = {"supported_versions": [VERSION]}
            return self._turn_away(
                VersionMismatch(f"only version {VERSION} is spoken here", extra=extra), one.id, now_ms
            )
        if count > 1:
            return self._turn_away(UnexpectedType("nothing follows hello before welcome"), one.id, now_ms)
        self.state = "greeting"
        return [Received(envelope=one, message=message)]

    def turn_away(self, error: OvernightError, hello: Envelope, now_ms: int) -> list[Event]:
        """Server: do not let the peer in. The nack is to be sent yet, then the transport closed."""
        return self._turn_away(error, hello.id, now_ms)

    def _turn_away(self, error: OvernightError, id_: str | None, now_ms: int) -> list[Event]:
        if self.side == "client":
            return [self._close(1002, error.detail)]
        told = {"code": error.code, "message": error.detail, "extra": error.extra}
        self._sender.greet("nack", told, now_ms, id_)
        return [Refused(error=error, scope=CONN, id=id_ or ""), self._close(1008, error.detail)]

    def _close(self, code: int, reason: str) -> Closing:
        self.state = "closed"
        return Closing(code=code, reason=reason[:100])
