"""The server's wall clock, as far as a worker elsewhere can tell."""

from __future__ import annotations

from typing import Final

from overnight.clock import Clock

CLOSE_MS: Final = 2000


class ServedClock:
    """This host's clock, its wall time put right by what the server says. The boot clock is this host's own.

    What a worker records carries wall times (until when to wait, when to try again), and others judge by them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms = 0

    def heard(self, server_ms: int) -> None:
        """An answer has just come with the server's time. What could be its way to us changes nothing."""
        ahead_ms = server_ms - self._clock.wall_ms()
        if abs(ahead_ms - self._ahead_ms) > CLOSE_MS:
            self._ahead_ms = ahead_ms

    def boot(self) -> float:
        """See `Clock.boot`."""
        return self._clock.boot()

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return self._clock.wall_ms() + self._ahead_ms

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await self._clock.sleep(seconds)
