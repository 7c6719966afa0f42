"""Runs: submit, look at, control, retry, delete."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import Body, Query
from pydantic import Field
from starlette.responses import Response

from overnight.domain.spec import RunSpec
from overnight.engine.control import Control
from overnight.errors import NotFound
from overnight.ids import RunId
from overnight.server.context import Here, listed, reply
from overnight.server.routing import API, IdempotencyKey, Operation, RunPath, idempotency_of
from overnight.wire import page, problem
from overnight.wire.v1 import schema
from overnight.wire.v1.commands import BulkControlBody, ControlBody, FilterBody
from overnight.wire.v1.runs import config_document, run_resource, run_summary

_SPEC_EXAMPLES: Final = {
    "smallest": {"value": {"goal": "Make the tests pass"}},
    "until done": {
        "value": {
            "goal": "Port the parser to the new grammar",
            "workspace": "/home/ada/parser",
            "completion": {"pattern": "^ALL DONE$"},
            "limits": {"turns": 20},
            "labels": {"team": "tools"},
        }
    },
}
SpecBody = Annotated[RunSpec, Body(openapi_examples=_SPEC_EXAMPLES)]


class RunQuery(FilterBody):
    """Filters and the page."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(max_length=100)] | None = None


async def submit_run(here: Here, spec: SpecBody, idempotency_key: IdempotencyKey = None) -> Response:
    """Accept a run. When this answers, the run is stored and survives whatever happens to the server."""
    idempotency = idempotency_of("POST /runs", idempotency_key, spec)
    run, created = await here.services.runs.submit(spec, here.caller.principal, idempotency=idempotency)
    headers = {"Location": f"{API}/runs/{run.id}"}
    if not created:
        headers["Idempotent-Replayed"] = "true"
    return reply(run_resource(run), 202, headers)


async def preview_run(here: Here, spec: SpecBody) -> Response:
    """The prompt of the first turn and the resolved configuration; nothing is stored or started."""
    preview = await here.services.runs.preview(spec, here.caller.principal)
    return reply({"prompt": preview.prompt, "config": config_document(preview.spec)})


async def list_runs(here: Here, query: Annotated[RunQuery, Query()]) -> Response:
    """Newest first. `state` and `label` (as `name=value`) may be repeated; `text` is looked for in the goal."""
    wanted = query.to_filter(here.owner)
    after = page.decode(query.cursor)
    found = await here.services.uow.read(lambda tx: tx.runs.page(wanted, limit=query.limit, after=after))
    return listed([run_summary(run) for run in found.runs], page.encode(found.next))


async def count_runs(here: Here, query: Annotated[FilterBody, Query()]) -> Response:
    """How many runs match, in all and by state."""
    wanted = query.to_filter(here.owner)
    counts = await here.services.uow.read(lambda tx: tx.runs.counts(wanted))
    return reply({"total": sum(counts.values()), "states": {state.value: n for state, n in counts.items()}})


async def get_run(here: Here, run_id: RunPath) -> Response:
    """The snapshot of a run."""
    run = await here.services.uow.read(lambda tx: tx.runs.get(RunId(run_id), here.owner))
    return reply(run_resource(run))


async def get_run_status(here: Here, run_id: RunPath) -> Response:
    """The same as the snapshot, under its older name."""
    return await get_run(here, run_id)


async def control_run(here: Here, run_id: RunPath, body: ControlBody) -> Response:
    """Pause, resume, cancel or steer; whoever holds the run acts within a second. The answer is the run as it is."""
    _, how = await here.services.runs.control(RunId(run_id), _control(body), here.caller.principal)
    run = await here.services.uow.read(lambda tx: tx.runs.get(RunId(run_id), here.owner))
    return reply(run_resource(run) | {"steer_how": how}, 202)


async def control_runs(here: Here, body: BulkControlBody) -> Response:
    """The same for many runs, each in a transaction of its own: one that refuses keeps no other from it."""
    ids = tuple(dict.fromkeys(body.ids or ()))
    wanted = (body.filter or FilterBody()).to_filter(here.owner, ids=ids)
    results = await here.services.runs.control_many(
        _control(body), here.caller.principal, filter=wanted, expect_count=body.expect_count
    )
    met = {result.run_id for result in results}
    items = [
        {
            "id": result.run_id,
            "ok": result.error is None,
            "run": run_summary(result.run) if result.run else None,
            "problem": problem.document(result.error) if result.error else None,
        }
        for result in results
    ]
    return listed(items + [_unknown(run_id) for run_id in ids if run_id not in met])


async def retry_run(here: Here, run_id: RunPath) -> Response:
    """A new run with the configuration of one that failed or was cancelled; it carries `retry_of`."""
    run = await here.services.runs.retry(RunId(run_id), here.caller.principal)
    return reply(run_resource(run), 202, {"Location": f"{API}/runs/{run.id}"})


async def delete_run(here: Here, run_id: RunPath) -> Response:
    """Remove a run that has ended, with its events and files."""
    await here.services.runs.delete(RunId(run_id), here.caller.principal)
    return Response(status_code=204)


def _control(body: ControlBody | BulkControlBody) -> Control:
    limits = body.limits.given() if body.limits else None
    return Control(action=body.action, reason=body.reason, text=body.text, when=body.when, limits=limits)


def _unknown(run_id: str) -> dict[str, object]:
    error = NotFound(f"no run {run_id}")
    return {"id": run_id, "ok": False, "run": None, "problem": problem.document(error)}


_run = partial(Operation, tag="runs")
OPERATIONS: Final = (
    _run(
        method="POST", path=f"{API}/runs", endpoint=submit_run, summary="Submit a run", status=202,
        model=schema.RunModel, refusals=(429, 507),
    ),
    _run(
        method="POST", path=f"{API}/runs/preview", endpoint=preview_run, summary="Preview a run",
        model=schema.PreviewModel,
    ),
    _run(method="GET", path=f"{API}/runs", endpoint=list_runs, summary="List runs", model=schema.RunList),
    _run(method="GET", path=f"{API}/runs/counts", endpoint=count_runs, summary="Count runs", model=schema.RunCounts),
    _run(
        method="POST", path=f"{API}/runs/control", endpoint=control_runs, summary="Control many runs",
        model=schema.BulkList,
    ),
    _run(method="GET", path=f"{API}/runs/{{run_id}}", endpoint=get_run, summary="Look at a run", model=schema.RunModel),
    _run(
        method="GET", path=f"{API}/runs/{{run_id}}/status", endpoint=get_run_status,
        summary="Look at a run (older name)", model=schema.RunModel,
    ),
    _run(
        method="POST", path=f"{API}/runs/{{run_id}}/control", endpoint=control_run, summary="Control a run",
        status=202, model=schema.ControlResult, refusals=(409,),
    ),
    _run(
        method="POST", path=f"{API}/runs/{{run_id}}/retry", endpoint=retry_run, summary="Retry a run", status=202,
        model=schema.RunModel, refusals=(409, 507),
    ),
    _run(
        method="DELETE", path=f"{API}/runs/{{run_id}}", endpoint=delete_run, summary="Delete a run", status=204,
        refusals=(409,),
    ),
)  # fmt: skip
