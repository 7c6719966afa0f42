"""Injected clocks: nothing in Overnight asks the operating system for the time by itself."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Time as the rest of the program sees it."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC; may jump in either direction."""
        ...

    def boot(self) -> float:
        """Seconds since the machine booted, counting suspension; never goes backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock; cancellable."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return time.time_ns() // 1_000_000

    def boot(self) -> float:
        """See `Clock.boot`; where the system has no boot-time clock, the monotonic one."""
        return time.clock_gettime(_BOOT)

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)


_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def rfc3339(ms: int) -> str:
    """A wall-clock time as RFC 3339 UTC with milliseconds: `2026-01-31T12:00:00.000Z`."""
    return f"{_to_the_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    # Thousands of events may share a second, and formatting it costs more than storing one of them.
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def from_rfc3339(text: str) -> int:
    """The inverse of `rfc3339`; any RFC 3339 offset is taken.

    Raises ValueError when `text` is no such time or names no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no UTC offset in {text!r}")
    return round(moment.timestamp() * 1000)
