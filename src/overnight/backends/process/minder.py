"""Ends an agent that talks when it does not begin its work in time, or stays when it is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from overnight.backends.process.dialogue import Dialogue
from overnight.errors import KeeperGone, LeaseLost

BEGIN_WITHIN_S: Final = 120.0
"""How long it may take until the agent can be given its prompt."""


class Minder:
    """Of one turn. `end` runs the ladder; what it raises when the keeper is gone or taken over is nobody's business."""

    def __init__(self, talk: Dialogue, patience_s: float, end: Callable[[], Awaitable[None]]) -> None:
        self.silent = False
        """It was ended because it never took its prompt."""
        self.dismissed = False
        """It was told that nothing more is wanted."""
        self._talk = talk
        self._patience_s = patience_s
        self._end = end
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """The agent is there, or was found there. Idempotent."""
        if not self._tasks:
            self._tasks.append(asyncio.create_task(self._mind_beginning(), name="mind the beginning"))

    def dismiss(self) -> None:
        """Its work is done, and its stdin is being closed."""
        self.dismissed = True
        self._tasks.append(asyncio.create_task(self._mind_end(), name="mind the end"))

    def rest(self) -> None:
        """Nothing is to be minded any more. Idempotent."""
        for task in self._tasks:
            task.cancel()

    async def _mind_beginning(self) -> None:
        await asyncio.sleep(BEGIN_WITHIN_S)
        if not self._talk.under_way:
            self.silent = True
            await self._ended()

    async def _mind_end(self) -> None:
        await asyncio.sleep(self._patience_s)
        await self._ended()

    async def _ended(self) -> None:
        with contextlib.suppress(KeeperGone, LeaseLost):
            await self._end()
