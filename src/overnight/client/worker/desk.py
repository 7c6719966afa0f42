"""The lease routes of a server, called over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from overnight.domain.backend import BackendCheck
from overnight.domain.json_values import dump
from overnight.domain.placement import root_of
from overnight.domain.run import Run
from overnight.domain.worker import Worker
from overnight.errors import StaleFacts
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
    is_progress,
)
from overnight.wire.v1 import leases as wire

Post = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a body to a path beneath `/api/v1/leases`; gives the answer, or raises what the server refuses with."""
ROOT: Final = "/api/v1/leases"


class RestLeaseDesk:
    """See `ports.lease_desk.LeaseDesk`."""

    def __init__(self, post: Post) -> None:
        self._post = post

    async def grant(
        self, worker: Worker, free: int, request_id: str, checks: Sequence[BackendCheck],
        report: Report = NOTHING_NEW, lease_s: float = 0.0,
    ) -> Grant:  # fmt: skip
        """See the port."""
        body = {
            "request_id": request_id,
            "worker": _seat(worker),
            "free": free,
            "checks": [wire.check_document(check) for check in checks],
            "well": report.well,
            "faults": list(report.faults),
            "lease_s": lease_s,
        }
        return wire.grant_of(await self._post("", _versioned(body)))

    async def take(self, worker: Worker, run: Run, lease_s: float = 0.0) -> Granted:
        """See the port."""
        body = _of(worker, token=run.token, lease_s=lease_s)
        return wire.granted_of(await self._post(f"/{run.id}/take", body))

    async def succeed(self, worker: Worker) -> tuple[Run, ...]:
        """See the port."""
        found = await self._post("/begin", _versioned({"worker": _seat(worker)}))
        return tuple(wire.run_of(document) for document in found["runs"])

    async def look(self, worker: Worker, run_id: RunId) -> Run:
        """See the port."""
        return wire.run_of((await self._post(f"/{run_id}/look", _of(worker)))["run"])

    async def renew(self, worker: Worker, tokens: Mapping[RunId, int], lease_s: float = 0.0) -> Renewal:
        """See the port."""
        body = _of(worker, tokens=dict(tokens), lease_s=lease_s)
        return wire.renewal_of(await self._post("/renew", body))

    async def watch(
        self, worker: Worker, tokens: Mapping[RunId, int], seen: Mapping[RunId, int], wait_s: float,
        *, work: bool,
    ) -> News:  # fmt: skip
        """See the port."""
        body = _of(worker, tokens=dict(tokens), seen=dict(seen), wait_s=wait_s, work=work)
        return wire.news_of(await self._post("/watch", body))

    async def facts(self, worker: Worker, run: Run, asks: Sequence[Ask]) -> tuple[Facts, Answers]:
        """See the port."""
        body = _of(worker, token=run.token, asks=[wire.ask_document(ask) for ask in asks])
        found = await self._post(f"/{run.id}/facts", body)
        return wire.facts_of(found["facts"], run.spec), wire.answers_of(tuple(asks), found["answers"])

    async def send(self, worker: Worker, run: Run, batch: Batch) -> Facts | None:
        """See the port."""
        route = "events" if is_progress(batch.ops) else "ack"
        try:
            found = await self._post(f"/{run.id}/{route}", _of(worker, **wire.batch_document(batch)))
        except StaleFacts as stale:
            free = stale.extra.get("place_free")
            stale.place_free = free if isinstance(free, bool) else None
            document: Any = stale.extra["facts"]
            stale.facts = wire.facts_of(document, run.spec)
            raise
        return None if found["facts"] is None else wire.facts_of(found["facts"], run.spec)

    async def show(self, worker: Worker, fragments: Sequence[Fragment]) -> None:
        """See the port."""
        await self._post("/show", _of(worker, fragments=dump(fragments)))

    async def give_up(self, worker: Worker, run: Run, code: str, message: str) -> None:
        """See the port."""
        await self._post(f"/{run.id}/give-up", _of(worker, token=run.token, code=code, message=message))

    async def hand_over(self, worker: Worker, tokens: Mapping[RunId, int]) -> None:
        """See the port."""
        await self._post("/hand-over", _of(worker, tokens=dict(tokens)))

    async def leave(self, worker: Worker) -> None:
        """See the port."""
        await self._post("/end", _of(worker))


def _versioned(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"protocol": wire.PROTOCOL, **body}


def _of(worker: Worker, **body: Any) -> dict[str, Any]:
    return _versioned({"worker": worker.id, **body})


def _seat(worker: Worker) -> dict[str, Any]:
    return {
        "id": worker.id,
        "host": worker.host_id,
        "name": worker.host_name,
        "pid": worker.pid,
        "version": worker.version,
        "slots": worker.slots,
        "backends": list(worker.backends),
        "labels": dict(worker.labels),
        "roots": [root for root in map(root_of, worker.places) if root is not None],
    }
