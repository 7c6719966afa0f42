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
        self.changed = asyncio.Condition()
        self.closed = False


class InProcess:
    """A `Transport`. Messages keep their bounds; a closed end is closed for both, with the code that was said."""

    def __init__(self, outward: _Lane, inward: _Lane) -> None:
        self._outward = outward
        self._inward = inward
        self.closed_with: tuple[int, str] | None = None

    async def send(self, message: bytes) -> None:
        """Wait for room, then hand it over. NotConnected once either end is closed."""
        lane = self._outward
        async with lane.changed:
            await lane.changed.wait_for(lambda: lane.closed or len(lane.waiting) < MOST_WAITING)
            if lane.closed:
                raise NotConnected("the other end is closed")
            lane.waiting.append(message)
            lane.changed.notify_all()

    async def receive(self) -> bytes | None:
        """The next message; None when it is closed and everything was received."""
        lane = self._inward
        await asyncio.sleep(0)  # a peer in the same loop must get its turn
        async with lane.changed:
            await lane.changed.wait_for(lambda: lane.closed or bool(lane.waiting))
            if not lane.waiting:
                return None
            found = lane.waiting.popleft()
            lane.changed.notify_all()
            return found

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Idempotent. What was sent before can still be received."""
        if self.closed_with is None:
            self.closed_with = (code, reason)
        for lane in (self._outward, self._inward):
            async with lane.changed:
                lane.closed = True
                lane.changed.notify_all()

    def cut(self) -> None:
        """Break the connection: what was under way is lost, and both ends find that out."""
        for lane in (self._outward, self._inward):
            lane.waiting.clear()
            lane.closed = True


def pair() -> tuple[InProcess, InProcess]:
    """Two ends of one connection."""
    there, back = _Lane(), _Lane()
    return InProcess(there, back), InProcess(back, there)
