"""Whether the other side is still there. Pure: whoever has the clock asks at `deadline`."""

from __future__ import annotations

from typing import Literal


class Liveness:
    """A peer that is quiet for a while is pinged, and is dead when it stays quiet as long again.

    Whatever it sends shows that it lives. A clock that runs backwards makes nobody dead.
    """

    __slots__ = ("_after", "_heard", "_pinged")

    def __init__(self, after_ms: int) -> None:
        self._after = after_ms
        self._heard: int | None = None
        self._pinged: int | None = None

    def heard(self, now: int) -> None:
        """Something came."""
        self._heard = now
        self._pinged = None

    def tick(self, now: int) -> Literal["fine", "ping", "dead"]:
        """What to do now; `ping` is said once, until the peer is heard of again."""
        if self._heard is None:
            self._heard = now
        if self._pinged is not None:
            return "dead" if now - self._pinged >= self._after else "fine"
        if now - self._heard < self._after:
            return "fine"
        self._pinged = now
        return "ping"

    def deadline(self, now: int) -> int:
        """When to ask again, in the same milliseconds."""
        since = self._pinged if self._pinged is not None else self._heard
        return (now if since is None else since) + self._after
