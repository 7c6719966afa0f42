"""The port through which a worker gets runs, keeps them and gives them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from overnight.domain.lease import Lease
from overnight.domain.run import Run
from overnight.domain.values import Failure
from overnight.ids import RunId


class RunSource(Protocol):
    """Leases of one registered worker. A call that raises `Unavailable` or `OutcomeUnknown` may be made again.

    Every lease counts from before the call was sent that gave or renewed it; the caller keeps that time.
    """

    async def claim(self, free: int) -> tuple[Run, ...]:
        """Take up to `free` due runs that this worker may carry out; each has been moved to running."""
        ...

    async def take(self, run: Run) -> Run:
        """Take over a held run that its holder has lost, under a new token. Raises LeaseLost if it is not so."""
        ...

    async def look(self, run_id: RunId) -> Run:
        """The run as it is now. Raises NotFound."""
        ...

    async def renew(self, tokens: Mapping[int, int]) -> frozenset[int]:
        """Renew all these {run pk: token} at once, before everything else; the pks that are lost come back."""
        ...

    async def fail(self, run: Run, failure: Failure) -> None:
        """End a held run that cannot be carried out here. Raises LeaseLost when its token is another by now."""
        ...

    async def hand_over(self, leases: Sequence[Lease]) -> None:
        """Write down that the agents of these runs are left to the next worker of this host."""
        ...

    async def succeed(self) -> tuple[Run, ...]:
        """What earlier workers of this host hold still. They are gone: the data directory is ours."""
        ...

    async def leave(self) -> None:
        """This worker is gone for good."""
        ...
