"""A WebSocket that the server has accepted, as whole messages."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from overnight.errors import NotConnected, TooSlow
from overnight.server.asgi import Receive, Send, SocketClient

_CLOSE_S: Final = 1.0
"""A peer that does not read is not told for long that it is over."""


class ServedTransport:
    """A `Transport` for `Link`. A peer that does not read for `patience_s` is dropped.

    `first_bytes` bounds the first message, of a peer that nobody knows yet.
    """

    __slots__ = ("_client", "_first_bytes", "_over", "_patience_s", "_receive", "_send", "sent_bytes")

    def __init__(
        self, receive: Receive, send: Send, client: SocketClient, *, patience_s: float, first_bytes: int | None
    ) -> None:  # fmt: skip
        self._receive = receive
        self._send = send
        self._client = client
        self._patience_s = patience_s
        self._first_bytes = first_bytes
        self._over = False
        self.sent_bytes = 0

    async def send(self, message: bytes) -> None:
        """Send one; returns when there is room for another. NotConnected once it is over, TooSlow once dropped."""
        if self._client.full:
            await self._room()
        try:
            self._client.write_text(message)
        except OSError:
            raise NotConnected("the client has left") from None
        self.sent_bytes += len(message)

    async def _room(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._client.drained()
        except TimeoutError:
            self._over = True
            self._client.abort()
            raise TooSlow("the client does not read what it is sent") from None

    async def receive(self) -> str | None:
        """The next message; None once it is over."""
        if self._over:
            return None
        message = await self._receive()
        text: str | None = message.get("text")
        if message["type"] != "websocket.receive":
            self._over = True
            return None
        if text is None:
            await self.close(1003, "every message is text")
            return None
        if self._first_bytes is not None:
            most, self._first_bytes = self._first_bytes, None
            if len(text) > most or len(text.encode()) > most:
                await self.close(1008, f"the first message has at most {most} bytes")
                return None
        return text

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End it; idempotent."""
        if self._over:
            return
        self._over = True
        said = {"type": "websocket.close", "code": code, "reason": _short(reason)}
        with contextlib.suppress(OSError):
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self._send(said)
            except TimeoutError:
                self._client.abort()


def _short(reason: str) -> str:
    """A control frame has room for 123 bytes of it."""
    return reason.encode()[:120].decode(errors="ignore")
