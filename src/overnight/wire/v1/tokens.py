"""Access tokens and workers as they travel."""

from __future__ import annotations

from overnight.clock import rfc3339
from overnight.domain.token import AccessToken
from overnight.domain.worker import Worker
from overnight.wire.v1.runs import time


def token_resource(token: AccessToken, *, now_ms: int) -> dict[str, object]:
    """A token without anything that could be used as one."""
    return {
        "id": token.id,
        "name": token.name,
        "owner": token.owner,
        "kind": token.kind,
        "usable": token.usable(now_ms),
        "created_at": rfc3339(token.created_at),
        "last_used_at": time(token.last_used_at),
        "expires_at": time(token.expires_at),
        "revoked_at": time(token.revoked_at),
    }


def worker_resource(worker: Worker, *, now_ms: int, stale_after_ms: int) -> dict[str, object]:
    """A worker, with its freshness computed now: `fresh` is false once it was silent for `stale_after_ms`."""
    return {
        "id": worker.id,
        "host_id": worker.host_id,
        "host": worker.host_name,
        "pid": worker.pid,
        "version": worker.version,
        "slots": worker.slots,
        "backends": list(worker.backends),
        "labels": dict(worker.labels),
        "state": worker.state,
        "fresh": worker.state != "gone" and now_ms - worker.seen_at < stale_after_ms,
        "started_at": rfc3339(worker.started_at),
        "seen_at": rfc3339(worker.seen_at),
    }
