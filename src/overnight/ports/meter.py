"""The meter: where the engine tells how long things took and what was used, for whoever watches the installation."""

from __future__ import annotations

from typing import Literal, Protocol

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


Relayed = Literal["published", "failed", "dropped", "heard", "missed", "reconnected"]
"""What became of notices between processes: taken by the carrier; refused by it or lost on the way; never sent; heard
from others; known to be missing; and how often a connection came back."""


class RelayMeter(Protocol):
    """Counts what a notifier carries between processes. Calls return at once and never raise."""

    def relayed(self, what: Relayed, count: int) -> None:
        """So many more of that kind."""
        ...

    def relay_connected(self, carrier: str, connected: bool) -> None:  # noqa: FBT001 -- the value of a gauge
        """Whether `carrier` (`valkey`, `postgres`) works at this moment."""
        ...


class Unmetered:
    """A meter that forgets, for embedding and for tests of other things."""

    def turn_settled(self, backend: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        """Nothing."""

    def written(self, seconds: float) -> None:
        """Nothing."""
