"""Listening: uvicorn without its own ideas about signals and logs, with loop, parser and socket protocol named."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import orjson
import uvicorn
from httptools import HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from overnight.errors import MalformedRequest, StartRefused
from overnight.server.asgi import CLIENT, App
from overnight.server.unix import unix_listener
from overnight.wire import problem

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's line and headers."""
MAX_MESSAGE: Final = 1024 * 1024
"""Bytes of one socket message."""
PING_S: Final = 20.0
"""A socket is pinged this often, and dead when it has not answered after the same time again."""
_TICK_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where to listen. `port` 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 4010
    tls_certificate: str | None = None
    tls_key: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose `X-Forwarded-*` headers are believed."""
    grace_s: float = 5.0
    """How long requests that are under way may take once the server stops."""
    unix: Path | None = None
    """Listen there too, for those of this machine who have no network: sockets, and what is open to all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A server that listens."""

    url: str
    port: int


class _Protocol(HttpToolsProtocol):
    """HTTP with a bound on request heads. It is the `asgi.Client` of its requests."""

    # The parent has as many attributes as Python keeps in an object itself: with more, each makes a dictionary.
    __slots__ = ("_head_bytes", "_in_head", "_leaving", "_piece")

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_bytes = 0
        self._in_head = True
        self._leaving: Callable[[], None] | None = None
        self._piece = b""

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        self._piece = data
        super().data_received(data)
        self._piece = b""
        if self._in_head and self._head_bytes > MAX_HEAD:
            self.transport.abort()

    def handle_websocket_upgrade(self) -> None:
        """What came with the handshake in one piece is the socket's."""
        upgrade = sys.exc_info()[1]
        begins = upgrade.args[0] if isinstance(upgrade, HttpParserUpgrade) else len(self._piece)
        rest, self._piece = self._piece[begins:], b""
        super().handle_websocket_upgrade()
        if rest:
            cast(asyncio.Protocol, self.transport.get_protocol()).data_received(rest)

    def send_400_response(self, msg: str) -> None:
        body = orjson.dumps(problem.document(MalformedRequest(msg)))
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head % (problem.MEDIA_TYPE.encode(), len(body)) + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = {CLIENT: {"is": self}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._leaving is not None:
            self._leaving()

    def watch(self, leaving: Callable[[], None] | None) -> None:
        self._leaving = leaving
        if leaving is not None and self not in self.connections:
            leaving()

    def abort(self) -> None:
        self.transport.abort()


class _SocketProtocol(asyncio.Protocol):
    """Our `websockets-sansio`, loaded with the first socket that is asked for."""

    def __new__(cls, **given: Any) -> Any:
        from overnight.server.socket.protocol import SocketProtocol  # noqa: PLC0415 -- see above

        return SocketProtocol(**given)


class _Server(uvicorn.Server):
    """Stops when it is told to, by nobody else; streams are ended before it waits for connections."""

    def __init__(
        self, config: uvicorn.Config, *, end_streams: Callable[[], None], unix: socket.socket | None = None
    ) -> None:
        super().__init__(config)
        self._end_streams = end_streams
        self._unix = unix
        self._stopping = asyncio.Event()
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

    def stop(self) -> None:
        """Begin to stop."""
        self.should_exit = True
        self._stopping.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._unix is not None:
            # Never by TLS: what goes there does not leave the machine.
            self.servers.append(
                await asyncio.get_running_loop().create_server(self._protocol, sock=self._unix)
            )
        self.listening.set()

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 10
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def serving(app: App, listen: Listen, *, end_streams: Callable[[], None]) -> AsyncIterator[Listening]:
    """Listen while the block runs. At its end nothing new is taken, `end_streams` is called, the rest gets its grace.

    Raises StartRefused when the address cannot be had.
    """
    with contextlib.closing(_bind(listen)) as listener, unix_listener(listen.unix) as unix:
        async with _serving(app, listen, listener, end_streams, unix) as listening:
            yield listening


@contextlib.asynccontextmanager
async def _serving(
    app: App,
    listen: Listen,
    listener: socket.socket,
    end_streams: Callable[[], None],
    unix: socket.socket | None,
) -> AsyncIterator[Listening]:
    server = _Server(_config(app, listen), end_streams=end_streams, unix=unix)
    task = asyncio.create_task(server.serve([listener]), name="http server")
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            raise StartRefused("the HTTP server did not start")
        yield _where(listener, listen)
    finally:
        listening.cancel()
        server.stop()
        await asyncio.gather(task, return_exceptions=True)


def _bind(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        listener = socket.create_server((listen.host, listen.port), family=family, backlog=2048)
    except OSError as error:
        raise StartRefused(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror}",
            mend="end what uses that address, or name another with OVERNIGHT_LISTEN",
        ) from None
    # Accepted connections inherit it. Loops set it themselves only on sockets that they made: without it every small
    # answer waits 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _config(app: App, listen: Listen) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop", http=_Protocol, lifespan="on",
        ws=_SocketProtocol, ws_max_size=MAX_MESSAGE, ws_ping_interval=PING_S, ws_ping_timeout=PING_S,
        # Compressing takes 50 KiB for each socket, and lets whoever chooses half of a message guess the other half.
        ws_per_message_deflate=False,
        log_config=None, access_log=False, server_header=False,
        proxy_headers=bool(listen.trusted_proxies), forwarded_allow_ips=list(listen.trusted_proxies),
        timeout_keep_alive=30, timeout_graceful_shutdown=max(1, round(listen.grace_s)),
        ssl_certfile=listen.tls_certificate, ssl_keyfile=listen.tls_key,
    )  # fmt: skip


def _where(listener: socket.socket, listen: Listen) -> Listening:
    port = int(listener.getsockname()[1])
    scheme = "https" if listen.tls_certificate else "http"
    host = "127.0.0.1" if listen.host in ("0.0.0.0", "::") else listen.host  # noqa: S104 - the address to call
    shown = f"[{host}]" if ":" in host else host
    return Listening(url=f"{scheme}://{shown}:{port}", port=port)
