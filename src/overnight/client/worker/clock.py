"""The server's wall clock, as far as a worker elsewhere can tell."""

from __future__ import annotations

from overnight.clock import Clock


class ServedClock:
    """This host's clock, its wall time put right by what the server says. The boot clock is this host's own.

    What a worker records carries wall times (until when to wait, when to try again), and others judge by them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms = 0

    def heard(self, server_ms: int) -> None:
        """An answer has just come with the server's time."""
        self._ahead_ms = server_ms - self._clock.wall_ms()

    def boot(self) -> float:
        """See `Clock.boot`."""
        return self._clock.boot()

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return self._clock.wall_ms() + self._ahead_ms

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await self._clock.sleep(seconds)
