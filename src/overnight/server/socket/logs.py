"""Logs over sockets: those of runs and sessions, live, from any cursor, rendered once for all who follow.

A subscription is a reader of the log and a task that sends what it gives. It waits where its client is slow, and the
log is read again from where it stopped; so nothing piles up here, and nothing is lost or told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from overnight.client.socket.link import Link
from overnight.domain.event import Recorded
from overnight.engine.channel import Batch, Entry, Fragment
from overnight.engine.follow import Reader
from overnight.errors import Disconnected, NotFound, OvernightError, ScopeOver, TooSlow, Unauthorized
from overnight.server.auth import Authenticator, Caller
from overnight.server.socket.handlers import Socket

MESSAGE_BYTES: Final = 256 * 1024
"""Bytes of the log in one message; a single longer entry goes alone."""
LOOK_S: Final = 10.0
"""How long a share may have ended before its followers notice, where another process has ended it."""

log = structlog.get_logger(__name__)
Seen = Callable[[Recorded], Awaitable[None]]
OVER: Final = (ScopeOver, TooSlow, Disconnected)
"""What ends a subscription without a word: there is nobody to say it to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a log is called in its kind of scope."""

    events: str
    fragment: str | None
    end: str


class Subscriptions:
    """The logs that one socket follows: one for each scope, the latest counts."""

    def __init__(self, socket: Socket, authenticator: Authenticator) -> None:
        self._socket = socket
        self._authenticator = authenticator
        self._open: dict[str, tuple[Reader[Recorded], asyncio.Task[None]]] = {}

    def begin(
        self, scope: str, reader: Reader[Recorded], caller: Caller, words: Words, *, fragments: bool,
        seen: Seen | None = None,
    ) -> None:  # fmt: skip
        """Send what `reader` gives into the scope, which is open, until its end; takes the reader over.

        `seen` is awaited with each entry of the log, after it was sent.
        """
        self.end(scope)
        sending = _Sending(
            self._socket.link, scope, reader, caller, words, self._authenticator, seen, fragments=fragments
        )
        task = asyncio.create_task(self._send(scope, reader, sending), name=f"follow {scope}")
        self._open[scope] = (reader, task)

    def end(self, scope: str) -> None:
        """Follow it no longer."""
        found = self._open.pop(scope, None)
        if found is not None:
            found[0].close()
            found[1].cancel()

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [task for _, task in self._open.values()]
        for scope in tuple(self._open):
            self.end(scope)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, scope: str, reader: Reader[Recorded], sending: _Sending) -> None:
        try:
            await sending.run()
        except OVER:
            pass
        except OvernightError as error:
            with contextlib.suppress(*OVER):
                self._socket.link.fail(scope, error)
        except Exception:
            log.exception("socket.follow_failed", scope=scope)
            with contextlib.suppress(*OVER):
                self._socket.link.fail(scope, OvernightError())
        finally:
            reader.close()
            if scope in self._open and self._open[scope][0] is reader:
                del self._open[scope]


class _Sending:
    """One subscription at work."""

    def __init__(
        self, link: Link, scope: str, reader: Reader[Recorded], caller: Caller, words: Words,
        authenticator: Authenticator, seen: Seen | None, *, fragments: bool,
    ) -> None:  # fmt: skip
        self._link = link
        self._scope = scope
        self._reader = reader
        self._caller = caller
        self._words = words
        self._authenticator = authenticator
        self._seen = seen
        self._fragments = fragments and words.fragment is not None
        self._looked_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Until the log or the subscription is over."""
        while (entries := await self._reader.read()) is not None:
            if self._caller.share is not None:
                await self._look()
            for entry in entries:
                await self._told(entry)
        await self._link.end(self._scope, self._words.end, {"cursor": self._reader.cursor})

    async def _told(self, entry: Entry[Recorded]) -> None:
        if isinstance(entry, Fragment):
            if self._fragments and self._words.fragment is not None:
                body = entry.rendered(_fragment)
                self._link.post(self._scope, self._words.fragment, body)
            return
        for payload in payloads(entry):
            await self._link.send(self._scope, self._words.events, payload)
        if self._seen is not None:
            for event in entry.items:
                await self._seen(event)

    async def _look(self) -> None:
        """Whether it is still shared."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        if not await self._authenticator.still(self._caller):
            raise Unauthorized("it is not shared with you any more")


def payloads(batch: Batch[Recorded]) -> Iterator[bytes]:
    """A batch as payloads of messages. One that fits into one message is rendered once for all its readers."""
    if sum(len(event.body) for event in batch.items) <= MESSAGE_BYTES:
        yield batch.rendered("socket", _events)
        return
    piece: list[Recorded] = []
    size = 0
    for event in batch.items:
        if piece and size + len(event.body) > MESSAGE_BYTES:
            yield _events(piece)
            piece, size = [], 0
        piece.append(event)
        size += len(event.body)
    if piece:
        yield _events(piece)


def _events(events: Sequence[Recorded]) -> bytes:
    return b'{"cursor":%d,"events":[%b]}' % (events[-1].seq, b",".join([event.body for event in events]))


def _fragment(last: int, body: bytes) -> bytes:
    return b'{"cursor":%d,"fragment":%b}' % (last, body)


def stream_id(scope: str, kind: str) -> str:
    """The id in the name of a scope. Raises NotFound for other kinds."""
    found, _, id = scope.partition(":")
    if found != kind:
        raise NotFound(f"{scope} is no {kind}")
    return id
