"""Limits of the queue: how many runs at once, and how many starts in a time. Pure arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE: Final = re.compile(r"(\d{1,6})\s*/\s*(second|minute|hour|day)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `starts` in `seconds`: a bucket that holds so many and fills evenly. It is full at first."""

    starts: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From text such as `30/hour` (second, minute, hour, day). Raises ValueError."""
        found = _RATE.fullmatch(text.strip())
        if found is None or int(found[1]) == 0:
            raise ValueError("must be starts in a time, such as 30/hour (second, minute, hour or day)")
        return cls(starts=int(found[1]), seconds=_UNITS[found[2]])

    def __str__(self) -> str:
        unit = {seconds: name for name, seconds in _UNITS.items()}[self.seconds]
        return f"{self.starts}/{unit}"

    @property
    def _every_us(self) -> int:
        return -(-self.seconds * 1_000_000 // self.starts)

    def bounded(self, full_at_us: int, now_us: int) -> int:
        """`full_at_us` within what this rate allows.

        It lies farther away only when the clock went back or the rate was raised: an empty bucket is meant then, which
        fills from now on.
        """
        return min(max(full_at_us, now_us), now_us + self._every_us * self.starts)

    def room(self, full_at_us: int, now_us: int) -> int:
        """How many may start now, by the moment at which the bucket will be full again (wall microseconds)."""
        missing = self.bounded(full_at_us, now_us) - now_us
        return (self._every_us * self.starts - missing) // self._every_us

    def after(self, full_at_us: int, now_us: int, starts: int) -> int:
        """The moment at which the bucket will be full again once `starts` more were taken from it."""
        return self.bounded(full_at_us, now_us) + starts * self._every_us


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much may be under way at once on all workers together. What is not named has no limit."""

    backends: Mapping[str, int] = field(default_factory=dict)
    """Held runs at most, by backend."""
    labels: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Held runs at most, by name and value of a label."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """Claims at most, by backend."""


NO_LIMITS: Final = QueueLimits()


def label_key(name: str, value: str) -> str:
    """How a label is named where it limits."""
    return f"{name}={value}"
