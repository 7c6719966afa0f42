"""A worker: a process that leases runs and carries them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from overnight.domain.lease import DEFAULT_LEASE_S
from overnight.domain.placement import ANYWHERE, at_host, host_of, root_of, satisfied
from overnight.domain.queue_limits import NO_LIMITS, QueueLimits
from overnight.errors import Conflict
from overnight.ids import HostId, WorkerId

WorkerState = Literal["active", "draining", "quarantined", "gone"]
"""`draining`: claims nothing more, finishes what it has. `quarantined`: the same, because it kept failing."""

QUARANTINE_AFTER: Final = 3
"""Failures in a row."""
QUARANTINED_BY: Final = "overnight"
"""Who puts workers into quarantine."""
QUARANTINE_WITHIN_MS: Final = 600_000
"""Failures that are older do not belong to the row any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One row of the workers table. Freshness is computed when it is read."""

    pk: int
    id: WorkerId
    host_id: HostId
    host_name: str
    pid: int
    version: str
    slots: int
    backends: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    """Shared roots (`root:…`) that it can reach, besides its own host."""
    state: WorkerState = "active"
    reason: str | None = None
    """Why it is in its state, where somebody or something put it there."""
    changed_by: str | None = None
    changed_at: int | None = None
    started_at: int
    seen_at: int
    busy: int = 0
    """How many runs it holds; counted when it is read."""

    def serves(self, place: str, backend: str, need: Mapping[str, str]) -> bool:
        """Whether it could ever take a run of that lane."""
        served = (at_host(self.host_id), ANYWHERE, *self.places)
        return place in served and backend in self.backends and satisfied(need, self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a worker can take now."""

    worker_pk: int
    host_id: HostId
    backends: tuple[str, ...]
    free: int
    """How many runs at most."""
    places: tuple[str, ...] = ()
    """Shared roots (`root:…`) that it can reach, besides its own host."""
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: QueueLimits = NO_LIMITS
    lease_s: float = DEFAULT_LEASE_S

    @property
    def served(self) -> tuple[str, ...]:
        """Every place whose runs it can take."""
        return (at_host(self.host_id), ANYWHERE, *self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What runs ask of a worker, and how many of them could be claimed if one offered it (at most 1000 are counted)."""

    pk: int
    place: str
    backend: str
    need: Mapping[str, str]
    runs: int = 0
    oldest_at: int | None = None
    """When the first of them was submitted, wall milliseconds."""


def why_unserved(lane: Lane, workers: tuple[Worker, ...]) -> str | None:
    """Why no run of the lane is claimed, in words for people; None when one of `workers` (the live ones) offers it."""
    reaching = [w for w in workers if w.serves(lane.place, w.backends[0] if w.backends else "", {})]
    if not reaching:
        return _nobody_there(lane.place)
    offering = [worker for worker in reaching if lane.backend in worker.backends]
    if not offering:
        return f"backend {lane.backend}: offered by nobody{_where(lane.place)}"
    for name, value in sorted(lane.need.items()):
        offering = [worker for worker in offering if worker.labels.get(name) == value]
        if not offering:
            return f"label {name}={value}: no worker bears it that offers {lane.backend}{_where(lane.place)}"
    if any(worker.state == "active" for worker in offering):
        return None
    return "every worker that could take it is " + " or ".join(sorted({w.state for w in offering}))


def _nobody_there(place: str) -> str:
    if (host := host_of(place)) is not None:
        return f"host {host}: no worker is there"
    if (root := root_of(place)) is not None:
        return f"shared root {root}: no worker reaches it"
    return "no worker is there"


def _where(place: str) -> str:
    if (host := host_of(place)) is not None:
        return f" on host {host}"
    if (root := root_of(place)) is not None:
        return f" that reaches {root}"
    return ""


Action = Literal["drain", "resume", "release"]
_MOVES: Final[Mapping[Action, Mapping[WorkerState, WorkerState]]] = {
    "drain": {"active": "draining", "draining": "draining"},
    "resume": {"draining": "active", "active": "active"},
    "release": {"quarantined": "active", "active": "active"},
}


def acted(state: WorkerState, action: Action) -> WorkerState:
    """The state after what a person asks of a worker; asking again changes nothing. Raises Conflict."""
    after = _MOVES[action].get(state)
    if after is None:
        mend = {"quarantined": "release it", "draining": "resume it"}.get(state, "")
        raise Conflict(f"a worker that is {state} cannot {action}", mend=mend)
    return after


def back(reason: str | None, changed_by: str | None) -> WorkerState:
    """The state of a worker that was taken for gone and is not: what it was before."""
    if reason is None:
        return "active"
    return "quarantined" if changed_by == QUARANTINED_BY else "draining"


def keeps_failing(faults: Sequence[int], now_ms: int, after: int) -> bool:
    """Whether failures at these times (wall milliseconds) are a reason for quarantine; `after` 0: never.

    A clock that was set back since then ends no row.
    """
    recent = [at for at in faults if now_ms - at < QUARANTINE_WITHIN_MS]
    return 0 < after <= len(recent)
