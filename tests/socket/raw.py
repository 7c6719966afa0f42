"""The other side of a WebSocket as bare bytes: whatever a peer might send, and exactly what it was sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True
    masked: bool = False


def frame(
    payload: bytes, opcode: int = TEXT, *, fin: bool = True, mask: bytes | None = None, rsv: int = 0
) -> bytes:
    """The bytes of one frame, lengths as short as they can be."""
    bit = 0x80 if mask is not None else 0
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if len(payload) < 126:
        head = struct.pack("!BB", first, bit | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(payload))
    return head + (payload if mask is None else mask + masked(payload, mask))


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def close(code: int | None = None, reason: bytes = b"", **more: bytes) -> bytes:
    """The bytes of a close frame."""
    return frame(b"" if code is None else struct.pack("!H", code) + reason, CLOSE, **more)  # type: ignore[arg-type]


@dataclass
class Peer:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: list[str] = field(default_factory=list)

    async def send(self, *pieces: bytes) -> None:
        """All of it in one write."""
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def frame(self) -> Frame | None:
        """The next frame; None when the other side has left."""
        async with asyncio.timeout(WITHIN_S):
            try:
                first, second = await self.reader.readexactly(2)
                size = second & 127
                if size == 126:
                    size = struct.unpack("!H", await self.reader.readexactly(2))[0]
                elif size == 127:
                    size = struct.unpack("!Q", await self.reader.readexactly(8))[0]
                mask = await self.reader.readexactly(4) if second & 128 else b""
                payload = await self.reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return Frame(
            first & 15, masked(payload, mask) if mask else payload, bool(first & 128), bool(second & 128)
        )

    async def until(self, opcode: int) -> Frame:
        """The next frame of that kind."""
        while (found := await self.frame()) is not None:
            if found.opcode == opcode:
                return found
        raise AssertionError(f"the other side left without a frame of kind {opcode}")

    async def closed(self) -> tuple[int | None, str]:
        """Code and reason of the close frame; (None, "") when it left without."""
        while (found := await self.frame()) is not None:
            if found.opcode == CLOSE:
                code = struct.unpack("!H", found.payload[:2])[0] if found.payload else 1005
                return code, found.payload[2:].decode()
        return None, ""

    async def read_head(self) -> None:
        """The lines of a request or an answer."""
        async with asyncio.timeout(WITHIN_S):
            while line := (await self.reader.readuntil(b"\r\n")).decode("latin-1").strip():
                self.head.append(line)

    def header(self, name: str) -> str | None:
        """A header's value."""
        for line in self.head[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None

    def accept(self, *more: str, key: str | None = None, protocol: str | None = "overnight.v1") -> bytes:
        """The answer to the handshake."""
        given = self.header("sec-websocket-key") if key is None else key
        digest = hashlib.sha1(f"{given}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        lines = [
            "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}", *more,
        ]  # fmt: skip
        if protocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {protocol}")
        return "\r\n".join([*lines, "", ""]).encode()

    def leave(self) -> None:
        """Cut the connection."""
        self.writer.transport.abort()


Serve = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(serve: Serve, *, shake: bool = True) -> AsyncIterator[str]:
    """A server that does as `serve` says with each connection, after the handshake unless told otherwise; its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            if shake:
                await peer.read_head()
                await peer.send(peer.accept())
            await serve(peer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def client(port: int, first: bytes | None = None) -> AsyncIterator[Peer]:
    """A client that has sent `first` (a handshake unless told otherwise), and has not yet read the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    peer = Peer(reader, writer)
    try:
        await peer.send(request() if first is None else first)
        yield peer
    finally:
        peer.leave()
        writer.close()


def request(path: str = "/api/v1/socket", *headers: str, host: str = "127.0.0.1") -> bytes:
    """A client's handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: overnight.v1", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()
