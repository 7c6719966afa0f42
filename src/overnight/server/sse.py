"""Sending a stream: raw ASGI, frames rendered once for all, batches rather than events.

A stream ends when it is over, when the client leaves (which the connection tells: `send` never would), when it does
not keep up, when its token is revoked, and when the server stops. There are thousands of them, and most are idle: one
that waits keeps a task, its reader and a few references, and nothing of its request or of what it has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import structlog
from starlette.responses import Response

from overnight.engine.channel import Batch, Entry
from overnight.engine.follow import Reader
from overnight.errors import NotFound, StreamTrimmed
from overnight.ids import new_connection_id
from overnight.server.asgi import AFTERWARDS, CLIENT, Client, Receive, Scope, Send
from overnight.server.connected import Attachment
from overnight.server.connections import Connections
from overnight.server.streams import OpenStream
from overnight.wire import sse

Item = TypeVar("Item")
SEND_BYTES: Final = 256 * 1024
"""One send carries at most this, because the transport buffers a whole send."""

log = structlog.get_logger(__name__)


class Renders(Protocol[Item]):
    """Makes frames of what a reader gives."""

    def frames(self, entries: Sequence[Entry[Item]]) -> bytes:
        """The frames of all entries, in order."""
        ...

    async def ending(self, cursor: int) -> bytes:
        """The last words of a stream that is over, behind its final item."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering(Generic[Item]):
    """How the entries of a stream become frames. `key` names the way a batch is rendered, for sharing."""

    key: str
    batch: Callable[[Sequence[Item]], bytes]
    fragments: bool = False

    def frames(self, entries: Sequence[Entry[Item]]) -> bytes:
        """The frames of all entries."""
        if len(entries) == 1 and isinstance(entries[0], Batch):
            return entries[0].rendered(self.key, self.batch)
        return b"".join([self._one(entry) for entry in entries])

    async def ending(self, cursor: int) -> bytes:
        """See `Renders`."""
        return sse.end(cursor)

    def _one(self, entry: Entry[Item]) -> bytes:
        if isinstance(entry, Batch):
            return entry.rendered(self.key, self.batch)
        return entry.rendered(sse.delta) if self.fragments else b""


class EventStream(Response, Generic[Item]):
    """A response that streams what a reader gives. It owns the reader, and closes it."""

    def __init__(
        self, reader: Reader[Item], rendering: Renders[Item], connections: Connections, what: Attachment, *,
        first: bytes = sse.OPENED,
    ) -> None:  # fmt: skip
        self.status_code = 200
        self.background = None
        self._reader = reader
        self._rendering = rendering
        self._connections = connections
        self._what = what
        self._first = first
        self._since = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Have the gate call back: then stream until it ends, for whatever reason."""
        client, body = scope["extensions"][CLIENT]["is"], not scope.get("overnight.head")
        scope[AFTERWARDS].append(partial(self._carry, client, _peer(scope), body))

    async def _carry(self, client: Client, peer: str, body: bool, send: Send) -> None:
        self._since = time.monotonic()
        opened = self._opened(peer)
        try:
            self._connections.add(opened)
            self._connections.meters.stream_opened()
            client.watch(opened.leave)
            await send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS)})
            if body:
                await self._stream(send, opened)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except _TooSlow:
            self._connections.meters.stream_dropped()
            log.info("stream.dropped", target=self._what.target, cursor=self._reader.cursor)
            await _cut(client)
        finally:
            client.watch(None)
            self._reader.close()
            self._connections.discard(opened)

    def _opened(self, peer: str) -> OpenStream:
        now = self._connections.now()
        return OpenStream(
            id=new_connection_id(now), what=self._what, peer=peer, since=now, active_at=now,
            reader=self._reader, pending_bytes=self._connections.settings.pending_bytes,
        )  # fmt: skip

    async def _stream(self, send: Send, opened: OpenStream) -> None:
        reader = self._reader
        await self._send(send, self._first, opened)
        with contextlib.suppress(StreamTrimmed, NotFound):  # it comes back, and is told before the first byte
            while await self._pass_on(await reader.read(), send, opened):
                pass
        if reader.over:
            await self._send(send, await self._rendering.ending(reader.cursor), opened)
        elif opened.goodbye is not None:
            await self._send(send, opened.goodbye, opened)

    async def _pass_on(self, entries: Sequence[Entry[Item]] | None, send: Send, opened: OpenStream) -> bool:
        """What has been read; then who else is there, if that is new; when it is long quiet, a sign of life.

        False when there was nothing to read any more. What was read is held here alone, and not until more comes.
        """
        if entries is None:
            return False
        frames = self._rendering.frames(entries)
        if (presence := opened.take_presence()) is not None:
            frames += sse.presence(self._reader.cursor, presence)
        if frames:
            await self._send(send, frames, opened)
            opened.active_at = self._connections.now()
            self._delivered(entries)
        elif opened.keepalive_due:
            await self._send(send, sse.KEEPALIVE, opened)
        return True

    def _delivered(self, entries: Sequence[Entry[Item]]) -> None:
        """Only what came after the reader counts: what was there before it says how late the reader is."""
        now = time.monotonic()
        for entry in entries:
            if isinstance(entry, Batch) and entry.known_at >= self._since:
                self._connections.meters.delivered(now - entry.known_at)

    async def _send(self, send: Send, frames: bytes, opened: OpenStream) -> None:
        for piece in sse.slices(frames, SEND_BYTES):
            await self._within_deadline(send, piece, opened)

    async def _within_deadline(self, send: Send, piece: bytes, opened: OpenStream) -> None:
        try:
            async with asyncio.timeout(self._connections.settings.send_timeout_s) as deadline:
                opened.sending(deadline)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise _TooSlow from None
        finally:
            opened.sent(len(piece))
        self._connections.meters.sent(len(piece))


class _TooSlow(Exception):
    """The reader did not keep up: the connection is cut, and the client comes back with its cursor."""


async def _cut(client: Client) -> None:
    """Close the connection without waiting for what the client does not read."""
    gone = asyncio.Event()
    client.watch(gone.set)
    client.abort()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await gone.wait()


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "unknown"
