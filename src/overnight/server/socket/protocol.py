"""One WebSocket on the server's side, as bytes: the web server's own protocol, hardened where it trusts its peer.

Loaded with the first socket that is asked for. What is changed: frames that come before the answer to the handshake
are kept and not lost; text that is no UTF-8 closes with 1007 and leaves no traceback in the log; a message is made of a
bounded number of fragments; pings of a peer that does not read are not answered without end; a peer that is gone is
gone after a while, however much there is left to send to it; and when the server stops, what is served here may say
goodbye first. Frames are never compressed.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from overnight.server.asgi import CLIENT
from overnight.server.socket.waiting import Arrivals, Room

MOST_FRAGMENTS: Final = 16 * 1024
"""Fragments of one message. Empty ones would otherwise go on for ever within any limit of bytes."""
_LONG: Final = 1 << 16
_TO_64K: Final = struct.Struct("!BBH")
_ABOVE: Final = struct.Struct("!BBQ")
"""Heads of frames, by the length of what follows."""
LINGER_S: Final = 5.0
"""A connection that is closed may take this long to send what is left."""


class SocketProtocol(WebSocketsSansIOProtocol):
    """It is the `asgi.SocketClient` of its connection."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.queue = Arrivals()  # type: ignore[assignment]
        self.writable = Room()  # type: ignore[assignment]
        self._early = b""
        """Frames that came before the handshake was answered."""
        self._on_stop: Callable[[], None] | None = None
        self._last: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, and nothing here is kept."""
        super().connection_lost(exc)
        self._on_stop = None
        if self._last is not None:
            self._last.cancel()
            self._last = None

    def handle_connect(self, event: Request) -> None:
        """The application is started, and finds us in its scope."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][CLIENT] = {"is": self}

    def data_received(self, data: bytes) -> None:
        """What comes before the handshake is answered waits until it is."""
        if self.handshake_initiated and not self.handshake_complete:
            self._early += data
            self.transport.pause_reading()
            return
        self.conn.receive_data(data)
        # First what was whole before anything broke: its sender has sent it.
        self.handle_events()
        if self.conn.parser_exc is not None and not self.close_sent:
            self.handle_parser_exception()
            self._linger()

    async def send(self, message: Any) -> None:
        """As the application asks. Raises ClientDisconnected once the socket is closed, by whomever."""
        if self.close_sent and message["type"] in {"websocket.send", "websocket.close"}:
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._accepted()
        elif message["type"] == "websocket.close":
            self._linger()

    def _accepted(self) -> None:
        """What only the handshake needed can go; what came with it is read now."""
        self.request.headers.clear()  # the parser keeps them for as long as it lives
        self.response.headers.clear()
        del self.request, self.response
        early, self._early = self._early, b""
        if early:
            self.transport.resume_reading()
            self.data_received(early)

    def handle_cont(self, event: Frame) -> None:
        """Another fragment of the message."""
        if len(self.frames) >= MOST_FRAGMENTS:
            self._fail(1009)
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """A whole message is there: tell the application, and read no more until it has taken it."""
        data, self.frames = b"".join(self.frames), []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "bytes":
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        else:
            try:
                text = data.decode()
            except UnicodeDecodeError:
                self._fail(1007)
                return
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _fail(self, code: int) -> None:
        if not self.close_sent and self.conn.close_sent is None:
            self.conn.send_close(code)
            self.handle_parser_exception()
            self._linger()

    def handle_ping(self) -> None:
        """Answered, unless the peer does not read what it was sent before."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        """The peer is dead. What is left to send to it must not keep the connection."""
        super().keepalive_timeout()
        self._linger()

    def shutdown(self) -> None:
        """The server stops: whoever serves this socket ends it in order, if somebody asked to be told."""
        if self._on_stop is not None and not self.close_sent:
            self._on_stop()
            return
        super().shutdown()
        self._linger()

    def _linger(self) -> None:
        if self._last is None and not self.disconnected:
            self._last = self.loop.call_later(LINGER_S, self.transport.abort)

    def watch_stop(self, stopping: Callable[[], None]) -> None:
        """See `asgi.SocketClient`."""
        self._on_stop = stopping

    def write_text(self, message: bytes) -> None:
        """See `asgi.SocketClient`."""
        if self.close_sent or self.disconnected:
            raise ClientDisconnected
        size = len(message)
        if size < 126:
            self.transport.write(b"\x81%c%b" % (size, message))
        elif size < _LONG:
            self.transport.write(_TO_64K.pack(0x81, 126, size) + message)
        else:
            self.transport.writelines([_ABOVE.pack(0x81, 127, size), message])

    @property
    def full(self) -> bool:
        """See `asgi.SocketClient`."""
        return not self.writable.is_set()

    async def drained(self) -> None:
        """See `asgi.SocketClient`."""
        await self.writable.wait()

    def abort(self) -> None:
        """See `asgi.SocketClient`."""
        self.transport.abort()
