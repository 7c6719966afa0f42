"""Workers as they travel, and what waits for one."""

from __future__ import annotations

from overnight.clock import rfc3339
from overnight.domain.placement import root_of
from overnight.domain.worker import Lane, Worker
from overnight.wire.v1.runs import time


def worker_resource(worker: Worker, *, now_ms: int, stale_after_ms: int) -> dict[str, object]:
    """A worker, with its freshness computed now: `fresh` is false once it was silent for `stale_after_ms`."""
    return {
        "id": worker.id,
        "host_id": worker.host_id,
        "host": worker.host_name,
        "pid": worker.pid,
        "version": worker.version,
        "slots": worker.slots,
        "busy": worker.busy,
        "backends": list(worker.backends),
        "labels": dict(worker.labels),
        "shared_roots": [root for root in map(root_of, worker.places) if root is not None],
        "state": worker.state,
        "reason": worker.reason,
        "changed_by": worker.changed_by,
        "changed_at": time(worker.changed_at),
        "fresh": is_fresh(worker, now_ms, stale_after_ms),
        "started_at": rfc3339(worker.started_at),
        "seen_at": rfc3339(worker.seen_at),
    }


def is_fresh(worker: Worker, now_ms: int, stale_after_ms: int) -> bool:
    """Whether the worker was heard of lately."""
    return worker.state != "gone" and now_ms - worker.seen_at < stale_after_ms


def lane_resource(lane: Lane, why: str, *, now_ms: int) -> dict[str, object]:
    """Runs that wait for somebody to offer what they ask for."""
    return {
        "place": lane.place,
        "backend": lane.backend,
        "labels": dict(lane.need),
        "runs": lane.runs,
        "oldest_s": max(now_ms - lane.oldest_at, 0) / 1000 if lane.oldest_at is not None else 0,
        "why": why,
    }
