"""The port for leases from elsewhere: what a worker without a database asks of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from overnight.domain.backend import BackendCheck
from overnight.domain.run import Run
from overnight.domain.worker import Worker
from overnight.ids import RunId
from overnight.ports.remote import (
    NOTHING_NEW,
    Answers,
    Ask,
    Batch,
    Facts,
    Fragment,
    Grant,
    Granted,
    News,
    Renewal,
    Report,
)


class LeaseDesk(Protocol):
    """The lease routes as a worker elsewhere calls them. Each raises what the server refuses with, `Unreachable` when
    nobody knows whether it was carried out, and may then be called again with the same arguments.

    `lease_s`: on which length of a lease the worker counts; it is at least so long.
    """

    async def grant(
        self, worker: Worker, free: int, request_id: str, checks: Sequence[BackendCheck],
        report: Report = NOTHING_NEW, lease_s: float = 0.0,
    ) -> Grant:  # fmt: skip
        """Lease up to `free` due runs. The same `request_id` again gives the same runs, and `report` counts once."""
        ...

    async def take(self, worker: Worker, run: Run, lease_s: float = 0.0) -> Granted:
        """Take over a run that this host has held under `run.token`. Raises LeaseLost."""
        ...

    async def succeed(self, worker: Worker) -> tuple[Run, ...]:
        """What earlier workers of this host hold still; they are gone from now on."""
        ...

    async def renew(self, worker: Worker, tokens: Mapping[RunId, int], lease_s: float = 0.0) -> Renewal:
        """Renew all of these."""
        ...

    async def look(self, worker: Worker, run_id: RunId) -> Run:
        """A run that a worker of this host holds, even if its lease has run out. Raises LeaseLost."""
        ...

    async def watch(
        self,
        worker: Worker,
        tokens: Mapping[RunId, int],
        seen: Mapping[RunId, int],
        wait_s: float,
        *,
        work: bool,
    ) -> News:
        """Wait until there is news, at most so long."""
        ...

    async def facts(self, worker: Worker, run: Run, asks: Sequence[Ask]) -> tuple[Facts, Answers]:
        """The facts of a run that it holds, and the answers to `asks`, all of one moment. Raises LeaseLost."""
        ...

    async def send(self, worker: Worker, run: Run, batch: Batch) -> Facts | None:
        """Have a batch applied; the facts after it, None when the hold has ended with it.

        Raises StaleFacts, LeaseLost, or what a rule says against it.
        """
        ...

    async def show(self, worker: Worker, fragments: Sequence[Fragment]) -> None:
        """Let whoever looks see these, of runs that it holds. What fails is not sent again: it is only for now."""
        ...

    async def give_up(self, worker: Worker, run: Run, code: str, message: str) -> None:
        """End a held run that cannot be carried out here. Raises LeaseLost."""
        ...

    async def hand_over(self, worker: Worker, tokens: Mapping[RunId, int]) -> None:
        """The agents of these are left to the next worker of this host."""
        ...

    async def leave(self, worker: Worker) -> None:
        """The worker is gone for good."""
        ...
