"""The sending half of a connection: lanes, credit, and packing into messages of the transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from overnight.errors import (
    BodyTooLarge,
    OvernightError,
    ProtocolError,
    ScopeExists,
    ScopeOver,
    TooManyRequests,
    TooSlow,
)
from overnight.wire.socket.catalog import failure_of
from overnight.wire.socket.catalog.message import Flow, MessageType
from overnight.wire.socket.envelope import CONN, frame, join, kind_of, payload_bytes
from overnight.wire.socket.limits import Limits
from overnight.wire.socket.outbox import Outbox, Outgoing, Policy
from overnight.wire.socket.scope import REOPENING, Scope, Scopes

ENVELOPE_BYTES: Final = 512
"""More than an envelope takes beside its payload."""
QUANTUM: Final = 16
"""Messages of one scope that go before the next scope has its turn."""
_LATER: Final = (400, 429, 503)
"""Status of errors after which trying again may help: the reader was slow, or there was too much to do."""
CONGESTED: Final = 1024
"""Control messages that wait: whoever drives the connection should read nothing more until they are sent."""


class Sender:
    """Queues messages, numbers them when they leave, and lets no scope starve another."""

    def __init__(
        self, scopes: Scopes, limits: Limits, *, new_id: Callable[[], str], catalog: Mapping[str, MessageType]
    ) -> None:
        self.limits = limits
        self.catalog = catalog
        self.opened: dict[str, str] = {}
        """Scopes that this side opened and that are not answered yet, by the id of their opening message."""
        self.asked: dict[str, str] = {}
        """Requests of the other side that have no reply yet: id and scope."""
        self._scopes = scopes
        self._new_id = new_id
        self._greeting: list[Outgoing] = []
        self._control = Outbox(window=0)
        self._active: dict[str, None] = {}

    @property
    def congested(self) -> bool:
        """Whether replies pile up because nobody sends them."""
        return len(self._control.waiting) >= CONGESTED

    @property
    def waiting(self) -> int:
        """Messages that are queued, those without credit among them."""
        return (
            len(self._greeting)
            + len(self._control.waiting)
            + sum(len(s.outbox.waiting) for s in self._scopes)
        )

    def restart(self, *, keep_control: bool = False) -> None:
        """Another transport: the control lane begins at 1, and is empty unless this is the first one."""
        if not keep_control:
            self._control = Outbox(window=0)
        self._greeting.clear()
        self.asked = {id_: scope for id_, scope in self.asked.items() if self._scopes.sending(scope)}
        self.opened = {id_: scope for id_, scope in self.opened.items() if self._scopes.sending(scope)}

    def greet(self, type_: str, payload: Mapping[str, Any], now_ms: int, reply_to: str | None = None) -> str:
        """Queue what goes before everything else, even while nothing else may go."""
        one = Outgoing(
            type=type_, id=self._new_id(), ts=now_ms, reply_to=reply_to, payload=payload_bytes(payload)
        )
        self._greeting.append(one)
        return one.id

    def control(
        self, type_: str, payload: Mapping[str, Any] | bytes, now_ms: int, reply_to: str | None = None
    ) -> str:
        """Queue a message of the connection's own."""
        one = Outgoing(
            type=type_, id=self._new_id(), ts=now_ms, reply_to=reply_to, payload=payload_bytes(payload)
        )
        self._control.put(one)
        return one.id

    def queue(
        self,
        scope: str,
        type_: str,
        payload: Mapping[str, Any] | bytes,
        *,
        now_ms: int,
        reply_to: str | None = None,
    ) -> str | None:
        """See `Connection.queue`."""
        message, data = self.catalog[type_], payload_bytes(payload)
        if len(data) + ENVELOPE_BYTES > self.limits.max_message_bytes:
            raise BodyTooLarge(f"a message of {len(data)} bytes is longer than the other side takes")
        if message.role == "reply":
            self._answer(reply_to)
        found = None if scope == CONN else self._target(scope, message, payload)
        if found is None:
            return self.control(type_, data, now_ms, reply_to)
        if not self._room(found, message, now_ms):
            return None
        if message.role == "terminal" and reply_to is not None:
            self.asked.pop(reply_to, None)
        refused = type_ == "nack" and not found.mine and reply_to is not None and reply_to == found.opener
        one = Outgoing(
            type=type_, id=self._new_id(), ts=now_ms, reply_to=reply_to, payload=data, spends=message.spends,
            prompt=message.role == "reply", last=message.role == "terminal" or refused,
        )  # fmt: skip
        self._put(found, one)
        if message.role == "terminal":
            self._scopes.bury(scope)
        elif message.opens:
            found.opener = one.id
            self.opened[one.id] = scope
        return one.id

    def nack(self, error: OvernightError, scope: str, id_: str | None, type_: str, now_ms: int) -> None:
        """Refuse a message of the other side, which never became a request of its own."""
        told = {"code": error.code, "message": error.detail, "mend": error.mend, "extra": error.extra}
        payload = {**told, "rejected": type_}
        found = None if scope == CONN else self._scopes.get(scope)
        if found is None:
            self.control("nack", payload, now_ms, id_)
            return
        one = Outgoing(type="nack", id=self._new_id(), ts=now_ms, reply_to=id_, payload=payload_bytes(payload),
                       prompt=True)  # fmt: skip
        self._put(found, one)

    def _answer(self, request: str | None) -> None:
        if request is None or self.asked.pop(request, None) is None:
            raise ProtocolError(f"{request} is no request that waits for its reply")

    def _target(self, name: str, message: MessageType, payload: Mapping[str, Any] | bytes) -> Scope | None:
        """The scope that the message goes into; None: a reply to a scope that is over, so it goes to `conn`."""
        found = self._scopes.get(name)
        if found is not None:
            if message.opens:
                raise ScopeExists(f"{name} is open already")
            return found
        if message.role == "reply":
            return None
        if not message.opens:
            raise ScopeOver(f"{name} is not open")
        flow = payload.get("flow") if isinstance(payload, Mapping) else None
        return self.open_mine(name, flow)

    def open_mine(self, name: str, flow: Flow | Mapping[str, Any] | None = None) -> Scope:
        """Open a scope from this side. TooManyRequests at the limit, ScopeOver when it is over for good."""
        if self._scopes.sending(name) or (self._scopes.over(name) and kind_of(name) not in REOPENING):
            raise ScopeOver(f"{name} was there before")
        if len(self._scopes) >= self.limits.scopes:
            raise TooManyRequests(f"{self.limits.scopes} scopes are open already")
        read = flow if isinstance(flow, Flow) else Flow.model_validate(flow or {})
        return self._scopes.open(
            name, mine=True, opener=None, window_in=read.window or self.limits.window,
            window_out=self.limits.window, policy="pause",
        )  # fmt: skip

    def open_theirs(self, name: str, opener: str | None, flow: object) -> Scope:
        """The other side has opened a scope, and said how it wants to be sent its events."""
        window, policy = self.limits.window, "pause"
        if isinstance(flow, Flow):
            window, policy = flow.window or window, flow.policy
        chosen: Policy = "fail" if policy == "fail" else "pause"
        return self._scopes.open(
            name, mine=False, opener=opener, window_in=self.limits.window, window_out=window, policy=chosen
        )  # fmt: skip

    def _room(self, scope: Scope, message: MessageType, now_ms: int) -> bool:
        box = scope.outbox
        if message.role == "transient" and (box.waiting or box.credit <= 0):
            return False
        if message.role in ("reply", "terminal") or message.opens or self.has_room(scope):
            return True
        if box.policy == "pause" or not message.spends:
            return False
        self.fail(scope, TooSlow("the reader of the scope does not keep up"), now_ms)
        raise TooSlow(f"the reader of {scope.name} does not keep up")

    def has_room(self, scope: Scope) -> bool:
        """Whether another message may wait in the scope."""
        box = scope.outbox
        return len(box.waiting) < self.limits.queue and box.waiting_bytes < self.limits.queue_bytes

    def fail(self, scope: Scope, error: OvernightError, now_ms: int) -> None:
        """End the scope with the terminal by which its kind says that it failed; its events are dropped."""
        scope.outbox.drop_events()
        terminal = failure_of(scope.kind, self.catalog)
        if terminal is None:
            self.drop(scope.name)
            return
        told = {"code": error.code, "message": error.detail,
                "retryable": getattr(error, "retryable", error.status in _LATER)}  # fmt: skip
        one = Outgoing(type=terminal, id=self._new_id(), ts=now_ms, reply_to=None, payload=payload_bytes(told),
                       last=True)  # fmt: skip
        self._put(scope, one)
        self._scopes.bury(scope.name)

    def _put(self, scope: Scope, one: Outgoing) -> None:
        scope.outbox.put(one)
        self.wake(scope)

    def wake(self, scope: Scope) -> None:
        """It may have something to send now."""
        if scope.outbox.ready:
            self._active[scope.name] = None

    def drop(self, name: str, *, bury: bool = True) -> None:
        """The scope is over: nothing of it is sent any more, but for replies, which go to `conn`."""
        found = self._scopes.close(name, bury=bury)
        self._active.pop(name, None)
        if found is None:
            return
        if found.opener is not None:
            self.opened.pop(found.opener, None)
        for one in found.outbox.waiting:
            if one.prompt and not one.last:
                self._control.put(one)

    def data_to_send(self, *, all_lanes: bool, most_bytes: int | None = None) -> list[bytes]:
        """See `Connection.data_to_send`. Without `all_lanes` only the greeting goes."""
        pack = Pack(self.limits)
        for one in self._greeting:
            self._control.seq += 1
            pack.add(_framed(one, CONN, self._control.seq))
        self._greeting.clear()
        while all_lanes and self._control.waiting:
            pack.add(_framed(self._control.take(), CONN, self._control.seq))
        while all_lanes and self._active and (most_bytes is None or pack.total < most_bytes):
            name = next(iter(self._active))
            del self._active[name]
            self._turn(name, pack)
        return pack.done()

    def _turn(self, name: str, pack: Pack) -> None:
        """One scope sends a few of its messages."""
        scope = self._scopes.sending(name)
        if scope is None:
            return
        box = scope.outbox
        for _ in range(QUANTUM):
            if not box.ready:
                break
            one = box.take()
            pack.add(_framed(one, name, box.seq))
            if one.last:
                self._scopes.sent_last(scope)
                return
        self.wake(scope)


class Pack:
    """Fills messages of the transport with envelopes, within the limits of both."""

    def __init__(self, limits: Limits) -> None:
        self.total = 0
        self._limits = limits
        self._messages: list[bytes] = []
        self._members: list[bytes] = []
        self._size = 2

    def add(self, member: bytes) -> None:
        """The next envelope."""
        full = self._size + len(member) + 1 > self._limits.max_message_bytes
        if self._members and (full or len(self._members) >= self._limits.max_batch):
            self._flush()
        self._members.append(member)
        self._size += len(member) + 1
        self.total += len(member)

    def _flush(self) -> None:
        self._messages.append(join(self._members))
        self._members, self._size = [], 2

    def done(self) -> list[bytes]:
        """The messages."""
        if self._members:
            self._flush()
        return self._messages


def _framed(one: Outgoing, scope: str, seq: int) -> bytes:
    return frame(one.type, scope, one.id, seq, one.ts, one.reply_to, one.payload)
