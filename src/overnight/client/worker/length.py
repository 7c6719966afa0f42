"""How long the server's leases are, and the clocks of this worker that follow from it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from overnight.domain.lease import keeper_deadline
from overnight.engine.policy import Timing
from overnight.errors import ConfigInvalid

log = structlog.get_logger(__name__)


class LeaseLength:
    """The server says it with every answer about leases, and may be configured anew while this worker runs.

    Whoever asks for leases, or renews them, says on which length it counts, and the server makes them at least so
    long. So a change is safe at any moment: a shorter length is trusted less, and a longer one only for leases that
    were asked for with it. Read it before a call and count with that, whatever the answer says.
    """

    def __init__(self, timing_of: Callable[[float], Timing]) -> None:
        self._timing_of = timing_of
        self._timing: Timing | None = None
        self._refused = 0.0

    @property
    def timing(self) -> Timing:
        """The clocks now; the server has been heard by then."""
        if self._timing is None:
            raise ConfigInvalid("the server has not said yet how long its leases are")
        return self._timing

    @property
    def seconds(self) -> float:
        """The length now."""
        return self.timing.lease_s

    def begin(self, seconds: float) -> None:
        """The server's first word. Raises ConfigInvalid where the length is too short for this worker."""
        self._timing = self._timing_of(seconds)

    def heard(self, seconds: float) -> None:
        """An answer has come with the server's length; 0 where it does not say. One that is too short changes nothing:
        our leases stay as long as we count on.
        """
        if seconds in {0.0, self.seconds, self._refused}:
            return
        before = self.seconds
        try:
            self._timing = self._timing_of(seconds)
        except ConfigInvalid as error:
            self._refused = seconds
            log.warning("lease.too_short", lease_s=seconds, kept_s=before, error=str(error), mend=error.mend)
        else:
            log.info("lease.changed", lease_s=seconds, before_s=before)

    def keeper_deadline(self, held_until: float) -> float:
        """Until when a keeper may let its agent go on, by a lease that is trusted until `held_until` (boot seconds)."""
        timing = self.timing
        return keeper_deadline(held_until - timing.lease_s, timing.lease_s, timing.grace_s)
