"""What a worker elsewhere knows about one hold: the facts, how far its batches have come, how long it is good."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from overnight.clock import Clock
from overnight.domain.run import Run
from overnight.errors import LeaseLost
from overnight.ports.remote import Facts, Granted


class Holding:
    """One hold of one run. Whoever writes has `lock`, from the first look at the facts until the server's answer."""

    def __init__(self, granted: Granted, until: float, clock: Clock) -> None:
        self.run: Run = granted.facts.run
        self.token = granted.facts.run.token
        self.environment: Mapping[str, str] = granted.environment
        self.agent_key = granted.agent_key
        self.facts = granted.facts
        self.lock = asyncio.Lock()
        self.batches = 0
        """How many have been answered."""
        self._until = until
        self._clock = clock
        self._lost: str | None = None

    def told(self, facts: Facts) -> None:
        """The server has said what is true now. It leaves out the spec, which never changes."""
        self.facts = facts

    def renewed(self, until: float) -> None:
        """The lease is good until that boot time."""
        self._until = max(self._until, until)

    def lose(self, why: str) -> None:
        """Nothing may be sent for it any more."""
        self._lost = self._lost or why

    def check(self) -> None:
        """Raise LeaseLost unless the hold is good, as far as this host can tell."""
        if self._lost is None and self._clock.boot() >= self._until:
            self._lost = "the lease ran out while the server could not be reached"
        if self._lost is not None:
            raise LeaseLost(self._lost)
