"""Two cores joined by hand, and a small catalog to drive them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from overnight.wire.socket.catalog import catalog, control
from overnight.wire.socket.catalog.message import Empty, Flow, MessageType, Payload, message
from overnight.wire.socket.connection import Connection
from overnight.wire.socket.events import Event, Received
from overnight.wire.socket.limits import Limits


class Start(Payload):
    flow: Flow | None = None


class Text(Payload):
    text: str


class Ended(Payload):
    code: str | None = None
    message: str = ""
    retryable: bool = False


KINDS = "stream tool run session"
SMALL: Mapping[str, MessageType] = catalog([
    *control.MESSAGES,
    message("start", KINDS, "both", "request", Start, "Open.", opens=True, replies=("ack",)),
    message("ask", KINDS + " conn", "both", "request", Empty, "Ask.", replies=("ack",)),
    message("abort", KINDS, "both", "request", Empty, "End.", settles=True, replies=("ack",)),
    message("text", KINDS, "both", "event", Text, "Say."),
    message("hint", KINDS, "both", "transient", Text, "Say, if there is room."),
    message("only.server", KINDS, "server", "event", Empty, "Not for clients."),
    message("done", KINDS, "both", "terminal", Empty, "Over."),
    message("failed", KINDS, "both", "terminal", Ended, "Over.", fails=True),
])  # fmt: skip


def raw(scope: str, seq: object, type_: str = "ask", **changes: object) -> bytes:
    """An envelope as another implementation might send it."""
    sound = {"v": 1, "type": type_, "scope": scope, "id": f"x{seq}", "seq": seq, "ts": 1, "payload": {}}
    return orjson.dumps({**sound, **changes})


class Exchange:
    """A client and a server. Every message that one sends is recorded before the other sees it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.client = Connection("client", catalog=SMALL)
        self.server = Connection("server", self.limits, catalog=SMALL)
        self.now = 1_000
        self.seen: dict[str, list[Event]] = {"client": [], "server": []}
        self.messages = 0
        """Carried so far."""
        self.cuts: set[int] = set()
        """The connection breaks when so many messages have been carried, and what is under way is lost."""
        self.react: Callable[[Connection, Event], None] = lambda *_: None

    def greet(self) -> Exchange:
        """Connect them."""
        self.client.hello({"token": "t"}, self.now)
        self.pump()
        return self

    def other(self, side: Connection) -> Connection:
        """The one at the other end."""
        return self.server if side is self.client else self.client

    def deliver(self, side: Connection, data: bytes | str) -> list[Event]:
        """A message comes to that side."""
        events = side.receive(data, self.now)
        self.seen[side.side] += events
        for one in events:
            if isinstance(one, Received) and one.envelope.type == "hello" and side is self.server:
                self.welcome(one)
            self.react(side, one)
        return events

    def welcome(self, hello: Received) -> None:
        """The server lets everybody in, and goes on where a hello asks for it."""
        resumed = hello.envelope.body.resume is not None
        told = {"connection": "c", "resume_key": "k", "resumed": resumed}
        self.seen["server"] += self.server.welcome(told, self.now, hello=hello.envelope)

    def pump(self) -> int:
        """Carry messages both ways until nobody has any; gives how many there were."""
        before = self.messages
        moved = True
        while moved:
            moved = False
            for side in (self.client, self.server):
                for data in side.data_to_send(1):
                    moved = True
                    if self.messages in self.cuts:
                        self.cuts.remove(self.messages)
                        self.cut()
                        self.resume()
                        break
                    self.messages += 1
                    self.deliver(self.other(side), data)
        return self.messages - before

    def put(self, side: Connection, scope: str, type_: str, payload: Mapping[str, Any] | None = None,
            reply_to: str | None = None) -> str | None:  # fmt: skip
        """Queue a message."""
        return side.queue(scope, type_, payload or {}, now_ms=self.now, reply_to=reply_to)

    def open(self, scope: str, **flow: Any) -> None:
        """The client opens a scope, and the server acks it."""
        id_ = self.put(self.client, scope, "start", {"flow": flow} if flow else {})
        self.pump()
        self.put(self.server, scope, "ack", reply_to=id_)
        self.pump()

    def cut(self) -> None:
        """The transport is gone, for both."""
        self.seen["client"] += self.client.cut(self.now)
        self.seen["server"] += self.server.cut(self.now)

    def resume(self) -> None:
        """The client comes back. The hello reaches a server's connection that is new; the old one goes on."""
        fresh = Connection("server", self.limits, catalog=SMALL)
        self.client.hello({"resume": {"connection": "c", "key": "k"}}, self.now)
        for data in self.client.data_to_send():
            for one in fresh.receive(data, self.now):
                assert isinstance(one, Received), one
                self.welcome(one)

    def types(self, side: str, scope: str) -> list[str]:
        """The types of what a side has received in a scope, in order."""
        return [one.envelope.type for one in self.received(side) if one.envelope.scope == scope]

    def texts(self, side: str, scope: str) -> list[str]:
        """What the events of a scope said."""
        found = self.received(side)
        return [str(one.envelope.payload["text"]) for one in found
                if one.envelope.scope == scope and "text" in one.envelope.payload]  # fmt: skip

    def received(self, side: str) -> list[Received]:
        """What a side has received."""
        return [one for one in self.seen[side] if isinstance(one, Received)]

    def nacks(self, side: str) -> list[str]:
        """The codes of the nacks that a side has received."""
        return [
            str(one.envelope.payload["code"]) for one in self.received(side) if one.envelope.type == "nack"
        ]
