"""Lease arithmetic. A lease is trusted by its holder's own boot-time clock, never by the wall clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from overnight.errors import LeaseLost

DEFAULT_LEASE_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The exclusive right to advance one run, as its holder sees it."""

    run_pk: int
    token: int
    trusted_until: float
    """Boot-clock seconds: the clock before the last committed renewal was sent, plus the lease."""

    def renewed(self, sent_at: float, lease_s: float) -> Lease:
        """The lease after a renewal that was sent at `sent_at` (boot clock) and has been committed."""
        return replace(self, trusted_until=max(self.trusted_until, sent_at + lease_s))

    def check(self, boot: float, token_now: int) -> None:
        """Raise `LeaseLost` unless this is the current token and the lease has not run out at `boot`."""
        if token_now != self.token:
            raise LeaseLost(f"token {self.token} is stale, the run is at {token_now}")
        if boot >= self.trusted_until:
            raise LeaseLost(f"the lease of token {self.token} ran out {boot - self.trusted_until:.3f} s ago")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What another holder's lease looked like, and since when (boot clock of the one who looks)."""

    token: int
    renewal: int
    since: float

    def seen(self, token: int, renewal: int, boot: float) -> Sighting:
        """This sighting if nothing has moved, else a new one that starts at `boot`."""
        if (token, renewal) == (self.token, self.renewal):
            return self
        return Sighting(token=token, renewal=renewal, since=boot)

    def stale(self, boot: float, lease_s: float) -> bool:
        """Whether nothing has moved for one lease on the looker's own clock."""
        return boot - self.since >= lease_s


def keeper_deadline(sent_at: float, lease_s: float, grace_s: float, *, margin_s: float = 1.0) -> float:
    """Boot-clock second at which a keeper begins its ladder, so that it is over before another host may take over.

    Raises ValueError when the lease is too short for a grace, 2 s of sweeping and the margin.
    """
    slack = lease_s - (grace_s + 2.0) - margin_s
    if slack <= 0:
        raise ValueError(f"a lease of {lease_s} s is too short for a grace of {grace_s} s")
    return sent_at + slack
