"""Workers: who carries out runs, and what a person may ask of them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

import structlog
from fastapi import Path
from starlette.responses import Response

from overnight.domain.worker import Action, Worker
from overnight.ids import WorkerId
from overnight.server.context import Here, listed, reply
from overnight.server.routing import API, Operation
from overnight.wire.v1 import schema
from overnight.wire.v1.commands import WorkerBody
from overnight.wire.v1.workers import worker_resource

WorkerPath = Annotated[
    str, Path(description="Id of a worker", max_length=64, examples=["wrk_01k0c3v9h4f6x8r2m5t7w9y1zb"])
]

log = structlog.get_logger(__name__)


def resource(here: Here, worker: Worker) -> dict[str, object]:
    """A worker as it is shown now."""
    stale = round(here.services.settings.worker_stale_s * 1000)
    return worker_resource(worker, now_ms=here.services.clock.wall_ms(), stale_after_ms=stale)


async def list_workers(here: Here) -> Response:
    """Who carries out runs; `fresh` and `busy` are found out now."""
    workers = await here.services.uow.read(lambda tx: tx.workers.all())
    return listed([resource(here, worker) for worker in workers])


async def drain_worker(here: Here, id: WorkerPath, body: WorkerBody | None = None) -> Response:
    """The worker finishes what it has and takes no more runs."""
    return await _act(here, id, "drain", body)


async def resume_worker(here: Here, id: WorkerPath, body: WorkerBody | None = None) -> Response:
    """A worker that was drained takes runs again."""
    return await _act(here, id, "resume", body)


async def release_worker(here: Here, id: WorkerPath, body: WorkerBody | None = None) -> Response:
    """A worker in quarantine takes runs again, and its failures are counted afresh."""
    return await _act(here, id, "release", body)


async def _act(here: Here, id: str, action: Action, body: WorkerBody | None) -> Response:
    now, by = here.services.clock.wall_ms(), here.caller.principal.name
    reason = body.reason if body else None
    worker = await here.services.uow.write(
        lambda tx: tx.workers.act(WorkerId(id), action, by=by, reason=reason, at=now)
    )
    log.info("worker.asked", worker=worker.id, action=action, state=worker.state, by=by, reason=reason)
    return reply(resource(here, worker))


_act_on = partial(Operation, tag="operation", method="POST", model=schema.WorkerModel, refusals=(409, 507))
OPERATIONS: Final = (
    Operation(
        tag="operation", method="GET", path=f"{API}/workers", endpoint=list_workers, summary="List workers",
        model=schema.WorkerList,
    ),
    _act_on(path=f"{API}/workers/{{id}}/drain", endpoint=drain_worker, summary="Let a worker take no more runs"),
    _act_on(path=f"{API}/workers/{{id}}/resume", endpoint=resume_worker, summary="Let a drained worker go on"),
    _act_on(path=f"{API}/workers/{{id}}/release", endpoint=release_worker, summary="End a worker's quarantine"),
)  # fmt: skip
