"""Keeps a link alive: connects, and connects again after every cut, until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from overnight.client.socket.link import Link
from overnight.client.socket.opening import Patience
from overnight.client.socket.target import Target
from overnight.client.socket.transport import Closing, SocketTransport
from overnight.clock import Clock, SystemClock
from overnight.errors import (
    Disconnected,
    NoReply,
    OvernightError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from overnight.wire.socket.envelope import Envelope

Where = Callable[[], Target]
"""Asked before every attempt: a server that has restarted may listen elsewhere."""
_PASSING: Final = (Unreachable, Unavailable, TooManyRequests, Disconnected)
"""Refusals that another attempt may not meet."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt: by chance, up to a bound that doubles with every failure."""

    first_s: float = 1.0
    most_s: float = 30.0
    lasting_s: float = 10.0
    """A connection that has lasted so long was none of the failures."""

    def bound(self, failures: int) -> float:
        """The longest wait after so many failures in a row."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures, 16))


class Connector:
    """Runs `link` over one connection after another. Its scopes go on where the core lets them; `follow` does the rest.

    `run` goes on until `close`, or until trying again makes no sense: the token is refused, or the URL. `beside` is
    called for every connection once its peer is greeted, and cancelled with it.
    """

    def __init__(
        self, link: Link, where: Target | Where, *, patience: Patience | None = None, backoff: Backoff | None = None,
        clock: Clock | None = None, chance: Callable[[], float] = random.random,
        beside: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self.link = link
        self.attempts = 0
        """Connections that were tried."""
        self.last: Closing | None = None
        """How the latest connection ended."""
        self._where = where
        self._backoff = backoff or Backoff()
        self._clock = clock or SystemClock()
        self._chance = chance
        self._transport = SocketTransport(patience)
        self._failures = 0
        self._beside = beside
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Until it is closed. Raises Unauthorized, Forbidden, UrlRefused and the like, which no waiting mends."""
        while not self._closed.is_set():
            pause = 0.0
            began = self._clock.boot()
            try:
                await self._connection()
            except _PASSING as error:
                log.debug("socket.not_connected", code=error.code, error=error.detail)
                pause = _asked_for(error)
            if self._clock.boot() - began >= self._backoff.lasting_s:
                self._failures = 0
            await self._wait(max(pause, self._chance() * self._backoff.bound(self._failures)))
            self._failures += 1

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the link and the connection for good; idempotent."""
        self._closed.set()
        await self.link.close(code, reason)
        await self._transport.close(code, reason)

    async def _connection(self) -> None:
        """One connection, from its opening to its end."""
        self.attempts += 1
        await self._transport.connect(self._where if isinstance(self._where, Target) else self._where())
        beside = asyncio.create_task(self._greeted(), name="beside a connection")
        try:
            await self.link.run(self._transport)
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
            await self._transport.close()
            self.last = self._transport.closing
        if self.last is not None and self.last.code == 1008 and not self._closed.is_set():
            raise Unauthorized(
                f"the server has ended the connection: {self.last.reason or 'no reason given'}"
            )

    async def _greeted(self) -> None:
        if self._beside is not None:
            with contextlib.suppress(Disconnected):
                await self.link.ready()
                await self._beside()

    async def _wait(self, seconds: float) -> None:
        """For so long, or until it is closed."""
        pause = asyncio.ensure_future(self._clock.sleep(seconds))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait([pause, closed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pause, closed):
                task.cancel()
            await asyncio.gather(pause, closed, return_exceptions=True)

    async def follow(self, scope: str, after: int = 0) -> AsyncIterator[Envelope]:
        """The messages of a scope with a log (`run:…`, `session:…`) behind `after`, over every cut, to its terminal.

        None is missing and none comes twice: each message says in `cursor` how far it goes. Raises StreamTrimmed where
        the log no longer has what follows, Disconnected once the link is closed.
        """
        cursor = after
        while True:
            try:
                await self.link.ready()
                await self.link.resume({scope: cursor})
                async for envelope in self.link.inbox(scope):
                    yield envelope
                    cursor = max(cursor, int(envelope.payload.get("cursor", cursor)))
                return
            except (Disconnected, NoReply):
                if self._closed.is_set():
                    raise


def _asked_for(error: OvernightError) -> float:
    """The wait that the server has asked for."""
    asked = error.extra.get("retry_after_s")
    return float(asked) if isinstance(asked, int | float) else 0.0
