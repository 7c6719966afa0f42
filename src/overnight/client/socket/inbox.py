"""What has come of one scope, in order, for one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

from overnight.errors import OvernightError
from overnight.wire.socket.envelope import Envelope


class Inbox:
    """The messages of a scope but for replies, its terminal the last. Reading them grants the sender more.

    Iteration ends after the terminal, and raises where the scope ended without one: the connection was cut, messages
    are missing, the log begins later. One reader at a time.
    """

    def __init__(self, scope: str, *, consumed: Callable[[], None], closed: Callable[[], None]) -> None:
        self.scope = scope
        self.wanted = False
        """Somebody has asked for it."""
        self._consumed = consumed
        self._closed = closed
        self._waiting: deque[tuple[Envelope, bool]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._over = False
        self._error: OvernightError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def over(self) -> bool:
        """Nothing more will come beside what is here."""
        return self._over

    def put(self, envelope: Envelope, *, spends: bool) -> None:
        """For the link: the next message."""
        self._waiting.append((envelope, spends))
        self._wake()

    def end(self, error: OvernightError | None = None) -> None:
        """For the link: nothing more comes."""
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    def close(self) -> None:
        """The reader wants no more: what is here and what comes later is dropped. The other side is not told."""
        self._waiting.clear()
        self.end()
        self._closed()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def take(self) -> Envelope | None:
        """The next message if it is here."""
        if not self._waiting:
            return None
        envelope, spends = self._waiting.popleft()
        if spends:
            self._consumed()
        return envelope

    def __aiter__(self) -> AsyncIterator[Envelope]:
        return self

    async def __anext__(self) -> Envelope:
        while True:
            if (found := self.take()) is not None:
                return found
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            await self._arrival()

    async def _arrival(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
