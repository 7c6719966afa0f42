"""Flow control of one scope, in either direction."""

from __future__ import annotations

from typing import Final

GRANT_BYTES: Final = 128 * 1024
"""After so many bytes a reader grants what it has consumed, however little that is."""


class Intake:
    """The reader's side: counts what comes, and says when to grant more.

    `held` are events that have come and were not consumed. Grants are made in portions, since each is a message.
    """

    __slots__ = ("_bytes", "_consumed", "held", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.held = 0
        self._consumed = 0
        self._bytes = 0

    def arrived(self, size: int) -> None:
        """An event has come."""
        self.held += 1
        self._bytes += size

    def consume(self, count: int) -> int:
        """So many events are done with; the credit to grant now, often 0."""
        done = min(count, self.held)
        self.held -= done
        self._consumed += done
        if self._consumed and (self._consumed * 2 >= self.window or self._bytes >= GRANT_BYTES):
            grant, self._consumed, self._bytes = self._consumed, 0, 0
            return grant
        return 0

    def restart(self) -> int:
        """The credit that the sender has after a cut, and has from now on."""
        self._consumed = self._bytes = 0
        return max(0, self.window - self.held)
