"""A clock that moves only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools

_SETTLE_ROUNDS = 20


class ManualClock:
    """`overnight.clock.Clock` by hand: `advance` wakes sleepers in the order in which they are due.

    Belongs to one event loop. Wall and boot time move together, except by `jump_wall`.
    """

    def __init__(self, *, wall_ms: int = 1_790_000_000_000, boot: float = 1000.0) -> None:
        self._wall_ms = wall_ms
        self._boot = boot
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._arrived = asyncio.Event()

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return self._wall_ms

    def boot(self) -> float:
        """See `Clock.boot`."""
        return self._boot

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`; zero or less only yields."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._boot + seconds, next(self._order), future))
        self._arrived.set()
        await future

    @property
    def sleepers(self) -> int:
        """How many are asleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: each sleeper that comes due runs before time goes further."""
        end = self._boot + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._move_to(max(due, self._boot))
            if not future.done():
                future.set_result(None)
                await _settle()
        self._move_to(end)
        await _settle()

    async def asleep(self, count: int = 1) -> None:
        """Wait until at least `count` are asleep: the code under test has come to its pause."""
        while self.sleepers < count:
            self._arrived.clear()
            await self._arrived.wait()

    def jump_wall(self, milliseconds: int) -> None:
        """The wall clock is set by that much, forward or back; boot time and sleepers do not notice."""
        self._wall_ms += milliseconds

    def suspend(self, seconds: float) -> None:
        """The machine slept: both clocks moved on, and nobody has been woken yet."""
        self._move_to(self._boot + seconds)

    def _move_to(self, boot: float) -> None:
        self._wall_ms += round((boot - self._boot) * 1000)
        self._boot = boot


async def _settle() -> None:
    # Woken tasks go on a few steps before time moves again; what truly waits for input or output does not count.
    for _ in range(_SETTLE_ROUNDS):
        await asyncio.sleep(0)
