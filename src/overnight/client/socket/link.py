"""A connection of the socket protocol on asyncio, for clients and servers alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from overnight.client.socket.carrying import Carrying
from overnight.client.socket.greeting import resume, unserved, welcomed
from overnight.client.socket.handling import Handling
from overnight.client.socket.inbox import Inbox
from overnight.client.socket.terms import (
    Admission,
    Ended,
    Greeter,
    Handler,
    LinkClosed,
    Nacked,
    Resumer,
    Transport,
    now_ms,
)
from overnight.client.socket.waiting import Replies, Room
from overnight.errors import Disconnected, NoReply, OvernightError
from overnight.wire.socket.catalog import CATALOG
from overnight.wire.socket.catalog.control import Welcome
from overnight.wire.socket.catalog.message import MessageType, Side
from overnight.wire.socket.connection import Connection
from overnight.wire.socket.envelope import CONN, Envelope, kind_of
from overnight.wire.socket.events import Closing, Event, Over, Received
from overnight.wire.socket.limits import Limits

__all__ = ["Admission", "Ended", "Handler", "Link", "LinkClosed", "Nacked", "NoReply", "Transport", "now_ms"]
_MOST_UNREAD: Final = 256
"""Inboxes of scopes that are over and that nobody has asked for yet."""
_DEAD: Final = 1011
"""With this code a connection is closed whose peer does not answer; whatever outlives a cut outlives that."""

_LAST_WORDS_S: Final = 10.0
"""How long a peer may take to read what is left when the link is closed."""


class Link:
    """Runs a `Connection` over one transport after another.

    `handlers` are found by message type, then by kind of scope. The one of the type is called for every such message;
    the one of the kind for requests, and for messages of scopes that have no inbox. Each call is a task of its own,
    begun in the order of arrival. A request whose handler returns without a reply is acked; one whose handler raises
    is nacked with the error's code, and where it had been answered before, the scope that it opened fails with it.
    """

    def __init__(
        self, side: Side, transport: Transport | None = None, *, limits: Limits | None = None,
        handlers: Mapping[str, Handler] | None = None, on_hello: Greeter | None = None,
        hello: Mapping[str, Any] | None = None, resumers: Mapping[str, Resumer] | None = None,
        catalog: Mapping[str, MessageType] = CATALOG, clock: Callable[[], int] = now_ms,
    ) -> None:  # fmt: skip
        self.connection = Connection(side, limits, catalog=catalog)
        self.welcome: Welcome | None = None
        """What the server said last."""
        self.on_hello = on_hello
        self.resumers = dict(resumers or {})
        self.clock = clock
        self._side: Side = side
        self._transport = transport
        self._handlers = dict(handlers or {})
        self._hello = dict(hello or {})
        self._inboxes: dict[str, Inbox] = {}
        self._unread: dict[str, Inbox] = {}
        self._replies = Replies()
        self._room = Room()
        self._work = Handling(self)
        self._carrying: Carrying | None = None
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._resumable: Welcome | None = None
        self._told = False
        self._closed = False

    def handle(self, handlers: Mapping[str, Handler], resumers: Mapping[str, Resumer]) -> None:
        """Serve these too, from now on: for a server that learns from the hello whom it serves."""
        self._handlers |= handlers
        self.resumers |= resumers

    # The course of a transport.

    async def run(self, transport: Transport | None = None) -> Ended:
        """Serve the transport until it ends. May be called again with another one, until `close`.

        Scopes that outlive a cut go on with the next transport, and their handlers go on meanwhile.
        """
        transport = transport or self._transport
        if transport is None or self._closed:
            raise Disconnected("there is no transport to run on")
        if self._side == "server":
            return await welcomed(self, transport)
        payload = dict(self._hello)
        if self._resumable is not None and self.connection.survives:
            payload["resume"] = {"connection": self._resumable.connection, "key": self._resumable.resume_key}
        self.connection.hello(payload, self.clock())
        return await self.serve(transport, [])

    async def serve(self, transport: Transport, events: list[Event]) -> Ended:
        """Go on with a transport whose peer is greeted, or is told hello now."""
        carrying = self._carrying = Carrying(
            self.connection, transport, self._room, clock=self.clock, dispatch=self._dispatch
        )
        self._idle.clear()
        self._told = False
        if self.connection.state == "open":
            self._ready.set()
        try:
            self._dispatch(events)
            await carrying.run()
        finally:
            ended = self._end(carrying)
            self._carrying = None
            self._idle.set()
        await carrying.shut()
        return ended

    def _end(self, carrying: Carrying) -> Ended:
        """The transport is over: what outlives it waits, everything else ends."""
        self._ready.clear()
        closing = carrying.closing or Closing(code=1006, reason="")
        final = self._closed or self._told or (carrying.closing is not None and closing.code != _DEAD)
        self._dispatch(self.connection.part(self.clock()) if final else self.connection.cut(self.clock()))
        survives = not final and self.connection.survives
        if not survives:
            self._resumable = None
        self._abandon(None if not survives else CONN)
        return Ended(code=closing.code, reason=closing.reason, survives=survives, told=self._told)

    def _abandon(self, scope: str | None) -> None:
        """Nobody waits any more for what cannot come: in this scope, or anywhere."""
        self._replies.fail(Disconnected("the connection was cut"), scope=scope)
        self._work.cancel(scope)
        if scope is None:
            self._room.look(lambda _: True)

    async def supplant(self) -> None:
        """End the transport that is being served, as if it had been cut, and wait until it is no longer served."""
        if self._carrying is not None:
            self._carrying.abort()
        await self._idle.wait()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the link for good, saying goodbye; idempotent. Nothing of it runs afterwards but who calls this."""
        if not self._closed:
            self._closed = True
            if self.connection.state == "open":
                self.connection.queue(CONN, "goodbye", {"reason": reason}, now_ms=self.clock())
            self._ready.set()
        if self._carrying is not None:
            self._carrying.close(Closing(code=code, reason=reason))
        if not self._work.here:
            await self._stopped()
        self._dispatch(self.connection.close())
        self._abandon(None)
        await self._work.finished()

    async def _stopped(self) -> None:
        """The transport is no longer served: everything was sent, or it does not take it."""
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._idle.wait()
        except TimeoutError:
            await self.supplant()

    # What came.

    def _dispatch(self, events: list[Event]) -> None:
        for one in events:
            if isinstance(one, Received):
                self._received(one)
            elif isinstance(one, Over):
                self._scope_over(one)
            elif isinstance(one, Closing) and self._carrying is not None:
                self._carrying.close(one)

    def _received(self, one: Received) -> None:
        envelope, role = one.envelope, one.message.role
        expected = self._replies.came(envelope)
        if role == "reply":
            return
        if role == "control":
            self._controlled(envelope)
            return
        inbox = self._inboxes.get(envelope.scope)
        if expected and inbox is not None and not inbox.wanted:
            return  # whoever has asked has it, and nobody else listens
        handler = resume if envelope.type == "resume" else self._handlers.get(envelope.type)
        if handler is None and (inbox is None or role == "request"):
            handler = self._handlers.get(kind_of(envelope.scope), unserved if inbox is None else None)
        if handler is not None:
            self._work.start(handler, one)
        elif inbox is not None:
            inbox.put(envelope, spends=one.message.spends)

    def _controlled(self, envelope: Envelope) -> None:
        if isinstance(envelope.body, Welcome):
            self.welcome = self._resumable = envelope.body
            self._replies.prune(
                lambda scope: scope == CONN or self.connection.scopes.sending(scope) is not None
            )
            self._ready.set()
        elif envelope.type == "goodbye" and self._carrying is not None:
            self._told = True
            self._carrying.close(Closing(code=1000, reason=""))

    def _scope_over(self, over: Over) -> None:
        inbox = self._inboxes.pop(over.scope, None)
        if inbox is not None:
            inbox.end(over.error)
            self._unread[over.scope] = inbox
            if len(self._unread) > _MOST_UNREAD:
                del self._unread[next(iter(self._unread))]
        self._room.free(over.scope)
        if over.error is not None:
            self._replies.fail(over.error, scope=over.scope)
            self._work.cancel(over.scope)

    # Sending.

    async def ready(self) -> None:
        """Wait until the peer has been greeted. LinkClosed when that will not happen any more."""
        if not self._closed:
            await self._ready.wait()
        if self._closed:
            raise Disconnected("the link is closed")

    async def request(
        self, scope: str, type: str, payload: Mapping[str, Any] | bytes, *, timeout_s: float = 30.0
    ) -> Envelope:
        """Send a request and give its reply. Raises Nacked, NoReply after `timeout_s`, LinkClosed, ScopeOver."""
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._replies.to(await self._queued(scope, type, payload), scope)
        except TimeoutError:
            raise NoReply(f"{type} was not answered within {timeout_s:g} s") from None
        if found.type == "nack":
            body = found.payload
            raise Nacked(body["code"], body["message"], mend=body.get("mend", ""), extra=body.get("extra"))
        return found

    async def send(
        self, scope: str, type: str, payload: Mapping[str, Any] | bytes, *, reply_to: str | None = None
    ) -> None:
        """Queue a message, waiting while the scope has no room. Raises ScopeOver, TooSlow, LinkClosed."""
        await self._queued(scope, type, payload, reply_to)

    async def _queued(
        self, scope: str, type_: str, payload: Mapping[str, Any] | bytes, reply_to: str | None = None
    ) -> str:
        if scope == CONN and reply_to is None and self.connection.state != "open":
            await self.ready()
        while (id_ := self._queue(scope, type_, payload, reply_to)) is None:
            if self.connection.catalog[type_].role == "transient":
                return ""
            await self._room.wait(scope)
        return id_

    def _queue(
        self, scope: str, type_: str, payload: Mapping[str, Any] | bytes, reply_to: str | None
    ) -> str | None:
        if self._closed:
            raise Disconnected("the link is closed")
        message = self.connection.catalog[type_]
        id_ = self.connection.queue(scope, type_, payload, now_ms=self.clock(), reply_to=reply_to)
        if message.opens and kind_of(scope) not in self._handlers:
            self._unread.pop(scope, None)  # what an earlier scope of that name has left
            self._inbox(scope)
        if message.role == "terminal":
            self._scope_over(Over(scope=scope))
        self._wake()
        return id_

    def _wake(self) -> None:
        if self._carrying is not None:
            self._carrying.wake()

    def post(
        self, scope: str, type: str, payload: Mapping[str, Any] | bytes, *, reply_to: str | None = None
    ) -> bool:
        """Queue a message if there is room, without waiting; False: there is none, and it is not sent."""
        return self._queue(scope, type, payload, reply_to) is not None

    async def end(
        self, scope: str, type: str, payload: Mapping[str, Any] | bytes, *, reply_to: str | None = None
    ) -> None:
        """End the scope with this terminal, which always gets through. Does nothing when it is over already."""
        if not self._closed and self.connection.scopes.get(scope) is not None:
            self._queue(scope, type, payload, reply_to)

    def fail(self, scope: str, error: OvernightError) -> None:
        """End the scope with the terminal by which its kind says that it failed; what waits for credit is dropped."""
        self.connection.fail(scope, error, self.clock())
        self._scope_over(Over(scope=scope))
        self._wake()

    # Scopes.

    def open(self, scope: str) -> None:
        """Open a scope without an opening message, as `resume` does."""
        self.connection.open(scope)
        self._unread.pop(scope, None)

    def forget(self, scope: str) -> None:
        """Have no more to do with the scope: later messages of it are dropped. The other side is not told."""
        self._inboxes.pop(scope, None)
        self._unread.pop(scope, None)
        self.connection.forget(scope)
        self._room.free(scope)

    async def resume(self, cursors: Mapping[str, int], *, timeout_s: float = 30.0) -> Envelope:
        """Client: go on with scopes that have a log. The inbox of one that cannot go on raises StreamTrimmed."""
        await self.ready()
        for scope in cursors:
            self.open(scope)
            self.inbox(scope)
        points = [{"scope": scope, "cursor": cursor} for scope, cursor in cursors.items()]
        return await self.request(CONN, "resume", {"scopes": points}, timeout_s=timeout_s)

    def inbox(self, scope: str) -> Inbox:
        """What comes in the scope. A scope that this side opens with a message has one from then on."""
        found = self._inbox(scope)
        found.wanted = True
        return found

    def _inbox(self, scope: str) -> Inbox:
        found = self._inboxes.get(scope)
        if found is None:
            found = self._unread.pop(scope, None)
        if found is None:
            found = self._inboxes[scope] = Inbox(
                scope, consumed=lambda: self.consumed(scope), closed=lambda: self.forget(scope)
            )
        return found

    def consumed(self, scope: str) -> None:
        """For inboxes and handlers: an event of the scope is done with."""
        if self.connection.consumed(scope, 1, self.clock()):
            self._wake()
