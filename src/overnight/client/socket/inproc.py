"""Two transports in one process: what one sends the other receives, message by message."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from overnight.errors import NotConnected

MOST_WAITING: Final = 64
"""Messages under way before `send` waits, as a network's buffers would make it."""


class _Lane:
    """One direction."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.readable = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.closed = False

    def put(self, message: bytes) -> None:
        """Another message."""
        self.waiting.append(message)
        self.readable.set()
        if len(self.waiting) >= MOST_WAITING:
            self.writable.clear()

    def take(self) -> bytes | None:
        """The first message, if there is one."""
        if not self.waiting:
            return None
        found = self.waiting.popleft()
        self.writable.set()
        if not self.waiting and not self.closed:
            self.readable.clear()
        return found

    def close(self) -> None:
        """Whoever waits finds out."""
        self.closed = True
        self.readable.set()
        self.writable.set()


class InProcess:
    """A `Transport`. Messages keep their bounds; a closed end is closed for both, with the code that was said."""

    def __init__(self, outward: _Lane, inward: _Lane) -> None:
        self._outward = outward
        self._inward = inward
        self.closed_with: tuple[int, str] | None = None

    async def send(self, message: bytes) -> None:
        """Wait for room, then hand it over. NotConnected once either end is closed."""
        await self._outward.writable.wait()
        if self._outward.closed:
            raise NotConnected("the other end is closed")
        self._outward.put(message)

    async def receive(self) -> bytes | None:
        """The next message; None when it is closed and everything was received."""
        await asyncio.sleep(0)  # a peer in the same loop must get its turn
        await self._inward.readable.wait()
        return self._inward.take()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Idempotent. What was sent before can still be received."""
        if self.closed_with is None:
            self.closed_with = (code, reason)
        self._outward.close()
        self._inward.close()

    def cut(self) -> None:
        """Break the connection: what was under way is lost, and both ends find that out."""
        for lane in (self._outward, self._inward):
            lane.waiting.clear()
            lane.close()


def pair() -> tuple[InProcess, InProcess]:
    """Two ends of one connection."""
    there, back = _Lane(), _Lane()
    return InProcess(there, back), InProcess(back, there)
