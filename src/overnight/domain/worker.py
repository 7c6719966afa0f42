"""A worker: a process that leases runs and carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overnight.ids import HostId, WorkerId


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
    state: Literal["active", "draining", "gone"] = "active"
    started_at: int
    seen_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a worker can take now."""

    worker_pk: int
    host_id: HostId
    backends: tuple[str, ...]
    free: int
    """How many runs at most."""
