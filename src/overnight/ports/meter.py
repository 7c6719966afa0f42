"""The meter: where the engine tells how long things took and what was used, for whoever watches the installation."""

from __future__ import annotations

from typing import Protocol

from overnight.domain.values import Usage


class Meter(Protocol):
    """Counts for one process. Calls return at once, never raise, and may come from the event loop only.

    Nothing depends on what was told: after a restart the counts begin anew, and the log has every fact.
    """

    def turn_settled(self, backend: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        """A turn has ended as `outcome` (`completed`, `failed`, `abandoned`); what it used, where that is known."""
        ...

    def written(self, seconds: float) -> None:
        """What the holder of a run wrote is durable, so long after it asked."""
        ...


class Unmetered:
    """A meter that forgets, for embedding and for tests of other things."""

    def turn_settled(self, backend: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        """Nothing."""

    def written(self, seconds: float) -> None:
        """Nothing."""
