"""What waits between a turn's agent and its recorder."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from overnight.errors import KeeperGone
from overnight.ports.backend import BackendTurn, Batch

MOST_WAITING: Final = 4_000
"""Updates that wait before no more are read; the agent itself is never held up by this."""


class Inbox:
    """A bounded queue of batches with one reader, who can also be woken for other reasons."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._waiting = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._filled = False
        self.cut = False
        """The keeper went before it could say how the turn ended."""

    @property
    def over(self) -> bool:
        """The turn has ended and every batch was taken."""
        return self._filled and not self._batches

    async def fill(self, living: BackendTurn) -> None:
        """Read until the turn has ended, at the pace of the one who takes."""
        try:
            async for batch in living.batches():
                await self._put(batch)
        except KeeperGone:
            self.cut = True
        self._filled = True
        self._news.set()

    async def _put(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._waiting += len(batch.updates)
        self._news.set()
        while self._waiting >= MOST_WAITING:
            self._room.clear()
            await self._room.wait()

    def stir(self) -> None:
        """Wake the reader."""
        self._news.set()

    async def news(self) -> None:
        """Wait until there is something to take, the end was reached, or somebody stirred."""
        if not self._batches and not self._filled:
            await self._news.wait()
        self._news.clear()

    def take(self) -> Batch | None:
        """The next batch, if one waits."""
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self._waiting -= len(batch.updates)
        if self._waiting < MOST_WAITING:
            self._room.set()
        return batch
