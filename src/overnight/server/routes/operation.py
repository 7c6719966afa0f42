"""How the work stands: the queue, metrics."""

from __future__ import annotations

import resource
import sys
from functools import partial
from typing import Final

from starlette.responses import Response

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.worker import Worker, why_unserved
from overnight.engine.directory import Backends
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Transaction
from overnight.server.context import Here, reply
from overnight.server.metrics import MEDIA_TYPE, Reading
from overnight.server.routing import API, Operation
from overnight.wire.v1 import schema
from overnight.wire.v1.workers import is_fresh, lane_resource

_QUEUE_LOOK: Final = 200
"""Queued runs that are looked at to say what nobody offers."""


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
                "unserved": await _unserved(here, live) if here.caller.admin else [],
            },
            "runs": {state.value: count for state, count in counts.items()},
            "workers": {
                "live": len(live),
                "slots": slots,
                "busy": busy,
                "saturated": bool(slots) and busy >= slots,
            },
            "streams": {"open": len(here.parts.connections), "dropped": here.parts.meters.streams_dropped},
            "database_bytes": size,
        }
    )


async def get_metrics(here: Here) -> Response:
    """Figures in the Prometheus text format."""
    counts, queued, workers, size = await here.services.uow.read(lambda tx: _standing(tx, None))
    now = here.services.clock.wall_ms()
    oldest_s = max((now - run.created_at for run in queued), default=0) / 1000
    page = here.parts.meters.page(
        [
            Reading("overnight_streams_open", "Open streams", len(here.parts.connections)),
            Reading(
                "overnight_runs", "Runs by state",
                {(state.value,): counts.get(state, 0) for state in State}, ("state",),
            ),
            Reading("overnight_queue_depth", "Runs that wait to be claimed", counts.get(State.QUEUED, 0)),
            Reading("overnight_queue_oldest_seconds", "Age of the oldest of the newest queued runs", oldest_s),
            Reading("overnight_workers", "Live workers", sum(_is_live(here, worker) for worker in workers)),
            Reading(
                "overnight_lease_age_seconds", "Since the longest waiting lease held here was renewed",
                here.services.lease_age_s(),
            ),
            Reading(
                "overnight_backend_check", "Last preflight of each backend: 1 for what it found",
                _checks(here.services.backends), ("backend", "status"),
            ),
            Reading("overnight_database_bytes", "Size of the database", size),
            Reading("overnight_resident_peak_bytes", "Most memory that the server has had", _peak_bytes()),
        ]
    )  # fmt: skip
    return Response(page, headers={"content-type": MEDIA_TYPE})


async def _unserved(here: Here, live: list[Worker]) -> list[dict[str, object]]:
    """What runs ask for and no live worker offers, across all owners."""
    now = here.services.clock.wall_ms()
    lanes = await here.services.uow.read(lambda tx: tx.leases.lanes())
    found = ((lane, why_unserved(lane, tuple(live))) for lane in lanes)
    return [lane_resource(lane, why, now_ms=now) for lane, why in found if why is not None]


def _standing(
    tx: Transaction, owner: str | None
) -> tuple[dict[State, int], tuple[Run, ...], tuple[Worker, ...], int]:
    queued = tx.runs.page(RunFilter(owner=owner, states=(State.QUEUED,)), limit=_QUEUE_LOOK)
    return tx.runs.counts(RunFilter(owner=owner)), queued.runs, tx.workers.all(), tx.installation.size_bytes()


def _is_live(here: Here, worker: Worker) -> bool:
    stale = round(here.services.settings.worker_stale_s * 1000)
    return is_fresh(worker, here.services.clock.wall_ms(), stale)


def _checks(backends: Backends) -> dict[tuple[str, ...], float]:
    last = [check for name in backends.names() if (check := backends.last(name)) is not None]
    return {(check.name, check.status): 1 for check in last}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_look = partial(Operation, tag="operation", method="GET")
OPERATIONS: Final = (
    _look(path=f"{API}/stats", endpoint=get_stats, summary="How the work stands", model=schema.StatsReport),
    _look(path="/metrics", endpoint=get_metrics, summary="Figures for Prometheus", media="text/plain"),
)  # fmt: skip
