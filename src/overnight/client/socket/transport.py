"""One WebSocket to a server, opened and closed any number of times: whole messages in, whole messages out."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from overnight.client.socket.opening import MAX_MESSAGE, Patience, opened
from overnight.client.socket.target import Target
from overnight.errors import AlreadyConnected, NotConnected, Unreachable

_PING_TIMEOUT: Final = "keepalive ping timeout"


class State(Enum):
    """Where a transport is. Only one that is DISCONNECTED or CLOSED connects."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How a connection ended. `code` is that of RFC 6455; 1006: it was cut, without a word."""

    code: int
    reason: str = ""
    by_peer: bool = False

    @property
    def ping_timeout(self) -> bool:
        """Whether the peer was given up because it did not answer pings."""
        return not self.by_peer and self.reason == "ping_timeout"


class SocketTransport:
    """A `Transport` for `Link`: `connect`, then `send` and `receive` until `receive` gives None, then `closing`."""

    def __init__(self, patience: Patience | None = None, *, max_message: int = MAX_MESSAGE) -> None:
        self._patience = patience or Patience()
        self._max_message = max_message
        self._state = State.DISCONNECTED
        self._socket: ClientConnection | None = None
        self._closing: Closing | None = None

    @property
    def state(self) -> State:
        """Where it is now."""
        return self._state

    @property
    def closing(self) -> Closing | None:
        """How the last connection ended; None before its end."""
        return self._closing

    async def connect(self, target: Target) -> None:
        """Open a connection. Nothing is left in it of an earlier one.

        Raises AlreadyConnected where there is one (and looks at nothing else then); Unreachable when nobody answers in
        time; HandshakeFailed when it is no server of ours; what the server said when it refused, as Unauthorized.
        After each of them it may be tried again.
        """
        if self._state not in {State.DISCONNECTED, State.CLOSED}:
            raise AlreadyConnected(f"the socket is {self._state.value}")
        self._state, self._socket, self._closing = State.CONNECTING, None, None
        try:
            socket = await opened(target, self._patience, self._max_message)
        except BaseException:
            self._state = State.DISCONNECTED if self._connecting else State.CLOSED
            raise
        if not self._connecting:
            socket.transport.abort()
            raise NotConnected("the socket was closed while it was opened")
        self._socket, self._state = socket, State.CONNECTED

    @property
    def _connecting(self) -> bool:
        return self._state is State.CONNECTING

    async def send(self, message: bytes) -> None:
        """Send one message; returns when there is room for the next one.

        Raises NotConnected when there is no connection, or it ended meanwhile; Unreachable when the peer did not take
        it in time, which drops the connection.
        """
        socket = self._connected()
        try:
            async with asyncio.timeout(self._patience.send_s):
                await socket.send(message, text=True)
        except ConnectionClosed:
            self._over(socket)
            raise NotConnected("the connection ended") from None
        except TimeoutError:
            socket.transport.abort()
            raise Unreachable("the server does not read what it is sent") from None

    async def receive(self) -> bytes | None:
        """The next message; None once the connection has ended, however it did. Raises NotConnected without one."""
        if self._state in {State.CLOSING, State.CLOSED}:
            return None
        socket = self._connected()
        try:
            found = await socket.recv()
            if isinstance(found, str):
                return found.encode()
            await socket.close(1003, "every message is text")
        except ConnectionClosed:
            pass
        self._over(socket)
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End it, from any state; idempotent. Waits for the peer's answer, though not for ever."""
        socket, self._socket = self._socket, None
        if socket is None:
            self._state = State.CLOSING if self._state is State.CLOSING else State.CLOSED
            return
        self._state = State.CLOSING
        try:
            await self._shake(socket, code, reason)
        finally:
            socket.transport.abort()
            self._state = State.CLOSED
            self._closing = self._closing or _closing(socket)

    async def _shake(self, socket: ClientConnection, code: int, reason: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience.close_s):
                await socket.close(code, reason)

    def _connected(self) -> ClientConnection:
        if self._socket is None or self._state is not State.CONNECTED:
            raise NotConnected(f"the socket is {self._state.value}")
        return self._socket

    def _over(self, socket: ClientConnection) -> None:
        if self._state is State.CONNECTED:
            self._state = State.CLOSED
        self._closing = self._closing or _closing(socket)


def _closing(socket: ClientConnection) -> Closing:
    """What counts is what was said first."""
    received, sent = socket.protocol.close_rcvd, socket.protocol.close_sent
    if sent is not None and (received is None or not socket.protocol.close_rcvd_then_sent):
        if sent.reason == _PING_TIMEOUT:
            return Closing(code=1006, reason="ping_timeout")
        return Closing(code=sent.code, reason=sent.reason)
    if received is not None:
        return Closing(code=received.code, reason=received.reason, by_peer=True)
    return Closing(code=1006, by_peer=True)
