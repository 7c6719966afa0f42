"""All sockets of one server: those that are open, and those that were cut and may come back."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from overnight.client.socket.link import Link
from overnight.client.socket.target import PATH
from overnight.client.socket.terms import Ended, Handler, Resumer
from overnight.errors import TooManyRequests, Unauthorized
from overnight.ids import ConnectionId
from overnight.server.asgi import SocketClient
from overnight.server.auth import Caller
from overnight.server.connected import Connected, Kind
from overnight.server.context import Parts
from overnight.server.socket.handlers import Socket
from overnight.server.socket.spoken import spoken
from overnight.wire.socket.catalog.control import Hello, Resumption
from overnight.wire.socket.limits import Limits

MOST_KEPT: Final = 256
"""Sockets that were cut and wait for their clients; beyond them the one that has waited longest is given up."""
MOST_STRANGERS: Final = 32
"""Connections whose client has shown no token yet."""
_END_S: Final = 1.0
"""A client whose socket is ended from our side hears of it within this, or not at all."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class OpenSocket(Connected):
    """One open socket among everybody who is connected."""

    socket: Socket
    client: SocketClient
    desk: Desk

    @property
    def kind(self) -> Kind:
        """See `Connected`."""
        return "socket"

    def tick(self) -> None:
        """See `Connected`. Sockets are kept alive by pings."""

    def show(self, presence: bytes) -> None:
        """See `Connected`. Presence is told in the scope of a session, to those who ask there."""

    def end(self, *, replaced: bool = False) -> None:
        """See `Connected`. After neither is the client to come back by itself."""
        self.close(
            1008, "the same client has connected again" if replaced else "the token is not valid any more"
        )

    def stop(self) -> None:
        """The server stops."""
        self.close(1012, "the server restarts")

    def close(self, code: int, reason: str) -> None:
        """End it for good, with a goodbye if the client reads; returns at once."""
        self.desk.beside(_ended(self.socket.link, self.client, code, reason))


async def _ended(link: Link, client: SocketClient, code: int, reason: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await link.close(code, reason)
            return
    client.abort()
    await link.close(code, reason)


@dataclass(slots=True, eq=False)
class _Held:
    """A socket, and by which connection it is held now: None while it is cut."""

    socket: Socket
    by: object | None
    until: asyncio.TimerHandle | None = None


class Desk:
    """Lets clients in, gives those that were cut their link again, and forgets what does not come back."""

    def __init__(self, parts: Parts, limits: Limits | None = None) -> None:
        self.parts = parts
        self.limits = limits or Limits()
        self.strangers = 0
        self._spoken = spoken(parts)
        self._held: dict[str, _Held] = {}
        self._cut: dict[str, None] = {}
        """Those that nobody holds, the longest waiting first."""
        self._beside: set[asyncio.Task[None]] = set()
        parts.authenticator.on_revoked(self._revoked)

    async def caller(self, known: Caller | None, hello: Hello) -> Caller:
        """Who it is that says hello. Raises Unauthorized, or Forbidden for a token that opens no socket."""
        if known is not None and hello.token is None:
            return known
        if known is not None:
            raise Unauthorized("there is a token in the header already", mend="say hello without one")
        caller = await self.parts.authenticator.caller(hello.token)
        caller.check("GET", PATH)
        return await self.parts.access.admitted(caller, "GET", PATH, b"")

    def held(self, asked: Resumption | None, caller: Caller) -> Socket | None:
        """The socket that was cut, if whoever asks is who it belonged to."""
        found = self._held.get(asked.connection) if asked is not None else None
        if asked is None or found is None or found.socket.caller.digest != caller.digest:
            return None
        return found.socket if hmac.compare_digest(found.socket.key.encode(), asked.key.encode()) else None

    def opened(self, id: ConnectionId, caller: Caller, link: Link) -> Socket:
        """A new one, with all that its kind of token may speak."""
        socket = Socket(id=id, key=secrets.token_urlsafe(18), caller=caller, link=link)
        handlers: dict[str, Handler] = {}
        resumers: dict[str, Resumer] = {}
        for one in self._spoken:
            if caller.principal.kind in one.kinds:
                handlers |= one.handlers(socket)
                resumers |= one.resumers(socket)
        link.handle(handlers, resumers)
        return socket

    def take(self, socket: Socket, by: object) -> None:
        """`by` holds the socket from now on, whoever held it before."""
        held = self._held.get(socket.id)
        if held is None:
            self._held[socket.id] = _Held(socket, by)
            return
        held.by = by
        self._cut.pop(socket.id, None)
        if held.until is not None:
            held.until.cancel()
            held.until = None

    def release(self, socket: Socket, by: object, ended: Ended) -> None:
        """The connection that held it is over. What survives waits; unless another has taken it meanwhile."""
        held = self._held.get(socket.id)
        if held is None or held.by is not by:
            return
        if not ended.survives:
            self._forget(socket.id)
            return
        held.by = None
        self._cut[socket.id] = None
        loop = asyncio.get_running_loop()
        held.until = loop.call_later(self.limits.resume_s, self._forget, socket.id)
        while len(self._cut) > MOST_KEPT:
            self._forget(next(iter(self._cut)))

    def _forget(self, id: str) -> None:
        self._cut.pop(id, None)
        held = self._held.pop(id, None)
        if held is not None:
            if held.until is not None:
                held.until.cancel()
            self.beside(self._left(held.socket))

    async def _left(self, socket: Socket) -> None:
        await socket.link.close()
        for one in self._spoken:
            if socket.caller.principal.kind in one.kinds:
                await one.left(socket)

    def _revoked(self, token_pk: int) -> None:
        for id in [*self._cut]:
            if self._held[id].socket.caller.principal.token_pk == token_pk:
                self._forget(id)

    def refuse_more_strangers(self) -> bool:
        """Whether there are as many as may be."""
        return self.strangers >= MOST_STRANGERS

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else; what goes wrong is logged."""
        task = asyncio.get_running_loop().create_task(work, name="socket")
        self._beside.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("socket.closing_failed", exc_info=error)

    async def close(self) -> None:
        """The server ends: nothing of any socket is left."""
        for id in [*self._held]:
            self._forget(id)
        while self._beside:
            await asyncio.wait(tuple(self._beside))

    def capabilities(self) -> Mapping[str, Any]:
        """What `welcome` says of this server."""
        return {"server": f"overnight/{self.parts.services.settings.version}"}

    def too_many(self, detail: str) -> TooManyRequests:
        """A refusal that is counted."""
        self.parts.meters.connection_refused()
        return TooManyRequests(detail)
