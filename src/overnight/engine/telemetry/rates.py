"""Rates: how much of something may happen in a second. Times are monotonic seconds that the caller gives."""

from __future__ import annotations

from collections import deque


class Slots:
    """At most `most` in any second, however the second is laid; and `credit` more, once, for time gone by unused."""

    def __init__(self, most: int, credit: int = 0) -> None:
        self._most = most
        self.credit = credit
        self._times: deque[float] = deque()

    def free(self, now: float) -> int:
        """How many may be taken at `now`."""
        times = self._times
        while times and times[0] <= now - 1.0:
            times.popleft()
        return self._most + self.credit - len(times)

    def take(self, now: float, count: int = 1) -> None:
        """Take `count`, of the credit first; the caller has looked at `free`, or must go on regardless."""
        credit = min(self.credit, count)
        self.credit -= credit
        self._times.extend([now] * (count - credit))

    def at(self, count: int, now: float) -> float:
        """When `count` (at most `most` and the credit) will be free, if nothing else is taken."""
        missing = count - self.free(now)
        return self._times[missing - 1] + 1.0 if missing > 0 else now


class Allowance:
    """So many pieces and bytes a second, in seconds that begin with their first piece."""

    def __init__(self, *, pieces: int, size: int) -> None:
        self._most = pieces, size
        self._until = float("-inf")
        self._left = 0, 0

    def take(self, size: int, now: float) -> bool:
        """Whether one more piece of `size` bytes is within the allowance; it is then used up."""
        if now >= self._until:
            self._until = now + 1.0
            self._left = self._most
        pieces, space = self._left
        if pieces < 1 or space < size:
            return False
        self._left = pieces - 1, space - size
        return True
