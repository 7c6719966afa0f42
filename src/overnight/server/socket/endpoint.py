"""The socket's door: a WebSocket that the gate has let pass becomes a link, and stays one until it ends.

Who came without a token in a header or a cookie says it in the first message, which is short and comes soon; only a
few may be about to do so at a time.
"""

from __future__ import annotations

from overnight.client.socket.link import Link
from overnight.client.socket.target import SUBPROTOCOL
from overnight.client.socket.terms import Admission, Ended
from overnight.errors import MalformedRequest
from overnight.ids import new_connection_id
from overnight.server.asgi import CALLER, CLIENT, Receive, Scope, Send, SocketClient
from overnight.server.auth import Caller
from overnight.server.connected import Attachment
from overnight.server.context import Parts
from overnight.server.socket.desk import Desk, OpenSocket
from overnight.server.socket.handlers import Socket
from overnight.server.socket.transport import ServedTransport
from overnight.wire.socket.catalog.control import Hello
from overnight.wire.socket.limits import Limits


class SocketEndpoint:
    """The ASGI application of the socket. It asks nobody for a token: the gate has, or the first message says it."""

    def __init__(self, parts: Parts, limits: Limits | None = None) -> None:
        self._desk = Desk(parts, limits)

    def check(self, scope: Scope, caller: Caller | None) -> None:
        """Before the handshake: raise MalformedRequest for another protocol, TooManyRequests where it is full."""
        if SUBPROTOCOL not in scope["subprotocols"]:
            raise MalformedRequest(
                "no subprotocol that is spoken here", mend=f"send `Sec-WebSocket-Protocol: {SUBPROTOCOL}`"
            )
        if caller is not None:
            self._desk.parts.connections.check(Attachment(caller=caller, target=None))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept, and serve until it ends."""
        await receive()
        try:
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        except OSError:
            return
        visit = _Visit(self._desk, scope, receive, send)
        scope.clear()  # the handshake's headers are not needed for as long as the socket is open
        del scope
        await visit.run()

    async def close(self) -> None:
        """The server has ended: let go of every link."""
        await self._desk.close()


class _Visit:
    """One connection, from its acceptance to its end."""

    __slots__ = ("_caller", "_client", "_desk", "_open", "_peer", "_stranger", "_transport")

    def __init__(self, desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
        self._desk = desk
        self._client: SocketClient = scope["extensions"][CLIENT]["is"]
        self._caller: Caller | None = scope.get(CALLER)
        self._peer = _peer(scope)
        self._stranger = self._caller is None
        self._open: OpenSocket | None = None
        self._transport = ServedTransport(
            receive, send, self._client,
            patience_s=desk.parts.services.settings.send_timeout_s,
            first_bytes=desk.limits.hello_bytes if self._stranger else None,
        )  # fmt: skip

    async def run(self) -> None:
        if self._stranger:
            if self._desk.refuse_more_strangers():
                await self._transport.close(1008, "too many have shown no token yet")
                return
            self._desk.strangers += 1
        link = Link("server", self._transport, limits=self._desk.limits, on_hello=self._greet)
        ended = Ended(code=1006)
        try:
            ended = await link.run()
        finally:
            self._known()
            if self._open is not None:
                self._desk.parts.connections.discard(self._open)
                self._desk.release(self._open.socket, self, ended)

    def _known(self) -> None:
        """It is no stranger any more, or gone."""
        if self._stranger:
            self._stranger = False
            self._desk.strangers -= 1

    async def _greet(self, link: Link, hello: Hello) -> Admission:
        caller = await self._desk.caller(self._caller, hello)
        what = Attachment(caller=caller, target=None)
        self._desk.parts.connections.check(what)
        known = self._desk.held(hello.resume, caller)
        now = self._desk.parts.connections.now()
        id = new_connection_id(now)
        socket = known or self._desk.opened(id, caller, link)
        opened = OpenSocket(
            id=id, what=what, peer=self._peer, since=now, active_at=now,
            socket=socket, client=self._client, desk=self._desk,
        )  # fmt: skip
        self._desk.parts.connections.add(opened)
        self._open = opened
        self._desk.take(socket, self)
        self._client.watch_stop(opened.stop)
        self._known()
        return self._admission(socket, known)

    def _admission(self, socket: Socket, known: Socket | None) -> Admission:
        return Admission(
            connection=socket.id, resume_key=socket.key, capabilities=self._desk.capabilities(),
            link=None if known is None else known.link,
        )  # fmt: skip


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "unknown"
