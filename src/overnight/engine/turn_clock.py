"""How much time a turn has left. It stands still while a person is waited for."""

from __future__ import annotations

import asyncio

from overnight.clock import Clock
from overnight.engine.waiting import within


class TurnClock:
    """Counts `left_s` seconds of the boot-time clock down."""

    def __init__(self, clock: Clock, left_s: float) -> None:
        self._clock = clock
        self._left_s = left_s
        self._until: float | None = clock.boot() + left_s
        """None while it stands still."""
        self._changed = asyncio.Event()

    def stop(self) -> float:
        """Stand still; the seconds left. Idempotent."""
        if self._until is not None:
            self._left_s = max(0.0, self._until - self._clock.boot())
            self._until = None
            self._changed.set()
        return self._left_s

    def go_on(self) -> float:
        """Count on; the seconds left. Idempotent."""
        if self._until is None:
            self._until = self._clock.boot() + self._left_s
            self._changed.set()
        return max(0.0, self._until - self._clock.boot())

    async def out(self, further_s: float) -> None:
        """Wait until the time is up and `further_s` more have passed."""
        while True:
            self._changed.clear()
            if self._until is None:
                await self._changed.wait()
            elif (left := self._until + further_s - self._clock.boot()) > 0:
                await within(self._clock, left, self._changed.wait())
            else:
                return
