"""What a relay counts: how much it carried, and how much it did not."""

from __future__ import annotations

from overnight.ports.meter import Relayed, RelayMeter


class Figures:
    """Counts since the start, passed on to a meter where there is one."""

    __slots__ = ("_carrier", "_meter", "connected", "counts")

    def __init__(self, carrier: str, meter: RelayMeter | None) -> None:
        self._carrier = carrier
        self._meter = meter
        self.connected = False
        """Whether everything works at this moment."""
        self.counts: dict[Relayed, int] = dict.fromkeys(
            ("published", "failed", "dropped", "heard", "missed", "reconnected"), 0
        )

    def add(self, what: Relayed, count: int = 1) -> None:
        """So many more."""
        if count:
            self.counts[what] += count
            if self._meter is not None:
                self._meter.relayed(what, count)

    def stands(self, *, connected: bool) -> None:
        """It works, or it does not."""
        self.connected = connected
        if self._meter is not None:
            self._meter.relay_connected(self._carrier, connected)
