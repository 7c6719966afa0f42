"""What a transaction offers about workers."""

from __future__ import annotations

from typing import Protocol

from overnight.domain.backend import BackendCheck
from overnight.domain.worker import Action, Worker
from overnight.ids import HostId, WorkerId


class WorkerTable(Protocol):
    """Workers and cached backend checks."""

    def add(self, worker: Worker, *, quarantine_after: int = 0) -> Worker:
        """Register; `worker.pk` is ignored. On a host that kept failing just now it begins in quarantine."""
        ...

    def beat(self, pk: int, at: int) -> None:
        """Heartbeat."""
        ...

    def set_state(self, worker_id: WorkerId, state: str, at: int) -> None:
        """Gone; or active again, which for one that was drained or in quarantine means just that. Raises NotFound."""
        ...

    def act(self, worker_id: WorkerId, action: Action, *, by: str, reason: str | None, at: int) -> Worker:
        """What a person asks; a release starts the count of failures afresh. Wakes `QUEUE`.

        Raises NotFound, Conflict.
        """
        ...

    def fault(self, pk: int, why: str, at: int, *, quarantine_after: int) -> bool:
        """The worker could not even begin, or lost its leases; whether that puts it into quarantine now."""
        ...

    def went_well(self, pk: int) -> None:
        """A turn is under way on the worker's host: whatever failed there before is no row any more."""
        ...

    def all(self) -> tuple[Worker, ...]:
        """Those not gone, oldest first, and those gone within the last hour of `seen_at`."""
        ...

    def forget(self, before: int, limit: int) -> int:
        """Remove at most `limit` that were gone already before that moment and hold nothing, with their seats, and
        all failures and preflights that are older; how many workers.
        """
        ...

    def save_check(self, host_id: HostId, check: BackendCheck) -> None:
        """Cache a preflight of this host."""
        ...

    def checks(self, host_id: HostId | None) -> tuple[BackendCheck, ...]:
        """Cached preflights."""
        ...
