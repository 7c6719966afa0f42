"""How the work stands: workers, attached clients, the queue, metrics."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from functools import partial
from typing import Final

from starlette.responses import Response

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.worker import Worker
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Transaction
from overnight.server import samples
from overnight.server.context import Here, listed, reply
from overnight.server.routing import API, Operation
from overnight.server.samples import Sample
from overnight.wire.v1 import schema
from overnight.wire.v1.tokens import worker_resource

_QUEUE_LOOK: Final = 200
"""Queued runs that are looked at to say what nobody offers."""


async def list_workers(here: Here) -> Response:
    """Who carries out runs; `fresh` is computed now."""
    workers = await here.services.uow.read(lambda tx: tx.workers.all())
    return listed([_worker(here, worker) for worker in workers])


async def list_connections(here: Here) -> Response:
    """Streams that are open on this server process now."""
    return listed(list(here.parts.streams.resources(None)))


async def get_stats(here: Here) -> Response:
    """Queue, runs by state, workers, and which backends are asked for while nobody offers them."""
    counts, queued, workers, size = await here.services.uow.read(lambda tx: _standing(tx, here.owner))
    now = here.services.clock.wall_ms()
    live = [worker for worker in workers if _is_live(here, worker)]
    offered = {name for worker in live for name in worker.backends}
    slots = sum(worker.slots for worker in live)
    busy = sum(
        counts.get(state, 0) for state in (State.RUNNING, State.PAUSING, State.BLOCKED, State.CANCELLING)
    )
    return reply(
        {
            "queue": {
                "depth": counts.get(State.QUEUED, 0),
                "oldest_s": max((now - run.created_at for run in queued), default=0) / 1000,
                "nobody_offers": sorted({run.backend for run in queued} - offered),
            },
            "runs": {state.value: count for state, count in counts.items()},
            "workers": {
                "live": len(live),
                "slots": slots,
                "busy": busy,
                "saturated": bool(slots) and busy >= slots,
            },
            "streams": {"open": len(here.parts.streams), "dropped": here.parts.meters.streams_dropped},
            "database_bytes": size,
        }
    )


async def get_metrics(here: Here) -> Response:
    """Figures in the Prometheus text format."""
    counts, queued, workers, size = await here.services.uow.read(lambda tx: _standing(tx, None))
    now = here.services.clock.wall_ms()
    figures = [
        *here.parts.meters.samples(open_streams=len(here.parts.streams)),
        *_run_samples(counts),
        _gauge("overnight_queue_depth", "Runs that wait to be claimed", counts.get(State.QUEUED, 0)),
        _gauge(
            "overnight_queue_oldest_seconds", "Age of the oldest of the newest queued runs",
            max((now - run.created_at for run in queued), default=0) / 1000,
        ),
        _gauge("overnight_workers", "Live workers", sum(_is_live(here, worker) for worker in workers)),
        _gauge("overnight_database_bytes", "Size of the database", size),
        _gauge("overnight_resident_peak_bytes", "Most memory that the server has had", _peak_bytes()),
        *(sample for more in here.services.samples for sample in more()),
    ]  # fmt: skip
    return Response(samples.render(figures), headers={"content-type": samples.MEDIA_TYPE})


def _standing(
    tx: Transaction, owner: str | None
) -> tuple[dict[State, int], tuple[Run, ...], tuple[Worker, ...], int]:
    queued = tx.runs.page(RunFilter(owner=owner, states=(State.QUEUED,)), limit=_QUEUE_LOOK)
    return tx.runs.counts(RunFilter(owner=owner)), queued.runs, tx.workers.all(), tx.installation.size_bytes()


def _worker(here: Here, worker: Worker) -> dict[str, object]:
    stale = round(here.services.settings.worker_stale_s * 1000)
    return worker_resource(worker, now_ms=here.services.clock.wall_ms(), stale_after_ms=stale)


def _is_live(here: Here, worker: Worker) -> bool:
    return bool(_worker(here, worker)["fresh"])


def _run_samples(counts: dict[State, int]) -> Iterable[Sample]:
    for state in State:
        yield Sample(
            name="overnight_runs", kind="gauge", help="Runs by state", value=counts.get(state, 0),
            labels={"state": state.value},
        )  # fmt: skip


def _gauge(name: str, help: str, value: float) -> Sample:
    return Sample(name=name, kind="gauge", help=help, value=value)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_look = partial(Operation, tag="operation", method="GET")
OPERATIONS: Final = (
    _look(path=f"{API}/workers", endpoint=list_workers, summary="List workers", model=schema.WorkerList),
    _look(
        path=f"{API}/connections", endpoint=list_connections, summary="List open streams",
        model=schema.ConnectionList,
    ),
    _look(path=f"{API}/stats", endpoint=get_stats, summary="How the work stands", model=schema.StatsReport),
    _look(path="/metrics", endpoint=get_metrics, summary="Figures for Prometheus", media="text/plain"),
)  # fmt: skip
