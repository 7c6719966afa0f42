"""Follows a stream over every cut: each event once, in order, none left out, also across restarts of the server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, cast

import httpx2
import orjson

from overnight.client.problems import error_of
from overnight.client.shapes import Delta, Event
from overnight.client.sse import Frame, SseParser
from overnight.client.transport import Transport
from overnight.clock import Clock
from overnight.errors import OvernightError, Unavailable, Unreachable

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
STRANGER_TRIES: Final = 6
_PASSING: Final = frozenset({408, 425, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to follow, and how patiently. `after`: the last seq that the caller has."""

    path: str
    after: int
    deltas: bool = False
    gapless: bool = True
    """Runs number their events without gaps; the stream of summaries only counts upwards."""
    patience_s: float | None = None
    """Give up after this long without a connection; None: never."""
    lost: Callable[[str], None] | None = None
    """Told why, each time the connection is lost."""


class Follow:
    """One reader's way along one stream."""

    def __init__(self, transport: Transport, clock: Clock, plan: Plan) -> None:
        self._transport = transport
        self._clock = clock
        self._plan = plan
        self._cursor = plan.after
        self._over = False
        self._failures = 0
        self._strange = 0
        self._since = clock.boot()
        self._holes = 0
        self._name = secrets.token_hex(8)

    async def items(self) -> AsyncGenerator[Event | Delta]:
        """Every event after the cursor until the stream is over.

        Raises NotFound, StreamTrimmed (events after the cursor are gone), Unauthorized and the like at once, and
        Unreachable when the patience is spent. Passing trouble is never seen.
        """
        while not self._over:
            why = "the server closed the stream"
            try:
                async with aclosing(self._connection()) as connection:
                    async for item in connection:
                        yield item
            except httpx2.TransportError as error:
                why = str(error) or type(error).__name__
            except _Hole as error:
                why = str(error)
            except Unavailable as error:
                why = error.detail
            if not self._over:
                await self._pause(why)

    async def _connection(self) -> AsyncGenerator[Event | Delta]:
        """One connection: from the cursor until it is cut or the stream is over."""
        query = {"after": self._cursor, "deltas": 1 if self._plan.deltas else None}
        # When the line was cut without the server's noticing, the new connection takes the dead one's place.
        headers = {"Overnight-Client": self._name}
        if self._cursor:
            headers["Last-Event-ID"] = str(self._cursor)
        async with self._transport.stream(self._plan.path, query=query, headers=headers) as response:
            if response.status_code == 204:
                self._over = True
                return
            await self._check(response)
            self._failures = self._strange = 0
            try:
                async with aclosing(self._items(response)) as items:
                    async for item in items:
                        yield item
            finally:
                # Patience begins when a connection is lost, not when it was made.
                self._since = self._clock.boot()

    async def _items(self, response: httpx2.Response) -> AsyncGenerator[Event | Delta]:
        parser = SseParser()
        async for chunk in response.aiter_raw():
            for frame in parser.feed(chunk):
                if self._ends(frame):
                    return
                item = self._item(frame)
                if item is not None:
                    yield item

    async def _check(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status == 200 and response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        if status == 200:
            raise OvernightError(
                "the server answered with something that is no event stream", mend="check its URL"
            )
        body = await response.aread()
        if status in _PASSING:
            raise Unavailable(error_of(status, body).detail)
        if status == 401 and self._transport.movable and self._strange < STRANGER_TRIES:
            # A server that has just restarted listens a moment before it announces its new token.
            self._strange += 1
            raise Unavailable("the server does not know the token")
        raise error_of(status, body)

    def _ends(self, frame: Frame) -> bool:
        self._over = frame.event == "end" and frame.data == "[DONE]"
        return self._over

    def _item(self, frame: Frame) -> Event | Delta | None:
        """What the caller has not seen yet; None for a repeat. Raises `_Hole` when something between is missing."""
        document = orjson.loads(frame.data)
        seq = document.get("seq") if self._plan.gapless else (int(frame.id) if frame.id.isdigit() else None)
        if frame.event != "message" or not isinstance(seq, int):
            return cast("Delta", document) if self._plan.deltas else None
        if seq <= self._cursor:
            return None
        if self._plan.gapless and seq != self._cursor + 1:
            self._holes += 1
            if self._holes > 3:
                raise OvernightError(f"the stream has no event {self._cursor + 1}, only {seq}")
            raise _Hole(f"event {self._cursor + 1} is missing")
        self._cursor, self._holes = seq, 0
        return cast("Event", document)

    async def _pause(self, why: str) -> None:
        if self._plan.lost is not None:
            self._plan.lost(why)
        away = self._clock.boot() - self._since
        if self._plan.patience_s is not None and away >= self._plan.patience_s:
            raise Unreachable(
                f"no connection for {away:.0f} s: {why}", mend="start a server with: overnight up"
            )
        await self._clock.sleep(min(FIRST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S))
        self._failures = min(self._failures + 1, 10)
        await self._transport.relocate()


class _Hole(Exception):
    """A seq was left out on the way."""
