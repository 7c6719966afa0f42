"""Leases for workers without a database. Only tokens of workers, and the operator's, come this far."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from overnight.errors import Forbidden
from overnight.ids import check_id
from overnight.server.context import Context, Here, reply
from overnight.server.routing import API, Operation, RunPath
from overnight.wire.v1 import lease_bodies as bodies
from overnight.wire.v1 import lease_schema
from overnight.wire.v1.document import Document


class RequestQuery(Document):
    """Which worker asks for which lease, and how long it waits."""

    worker: Annotated[str, Field(min_length=1, max_length=64)]
    token: Annotated[int, Field(ge=0, le=1 << 53)]
    after: Annotated[int, Field(ge=0, le=1 << 53)] = 0
    wait_s: Annotated[float, Field(ge=0, le=30)] = 0


async def lease_runs(here: Here, body: bodies.OfferBody) -> Response:
    """Lease up to `free` due runs that the worker can take, waiting for the first one at most `wait_s`.

    The same `request_id` again gives the same leases, as long as they are held. A lease that is not renewed within
    `lease_s` is lost, and the run goes to somebody else. `state` is what the operator wants of the worker: one that
    is `draining` or `quarantined` gets nothing more. Environment values are in this answer alone.
    """
    return reply(await here.leases.grant(_token(here), body))


async def begin_worker(here: Here, body: bodies.SeatBody) -> Response:
    """A worker begins: earlier ones of its host are gone, and what they hold still is the answer."""
    return reply(await here.leases.succeed(_token(here), body))


async def end_worker(here: Here, body: bodies.Call) -> Response:
    """A worker ends for good."""
    return reply(await here.leases.leave(_token(here), body))


async def renew_leases(here: Here, body: bodies.RenewBody) -> Response:
    """Renew all of these at once. `lost` are no longer the worker's; `requests` has the newest number of each other."""
    return reply(await here.leases.renew(_token(here), body))


async def watch_leases(here: Here, body: bodies.WatchBody) -> Response:
    """Wait until one of the runs is asked something newer than `seen`, or is lost, or (`work`) the queue has moved."""
    return reply(await here.leases.watch(_token(here), body))


async def hand_over_leases(here: Here, body: bodies.TokensBody) -> Response:
    """The agents of these runs are left to the next worker of the host; their logs say so."""
    return reply(await here.leases.hand_over(_token(here), body))


async def show_fragments(here: Here, body: bodies.ShowBody) -> Response:
    """Show text that an agent is still at, as `message.delta` and its like, to whoever follows with `deltas=1`.

    Only for runs that are held; what belongs to others is left out. Nothing of it is stored: report the whole item as
    an event once it is there. Send a few times a second at most, and nothing twice.
    """
    return reply(await here.leases.show(_token(here), body))


async def renew_lease(here: Here, run_id: RunPath, body: bodies.RenewOneBody) -> Response:
    """Renew one lease."""
    return reply(await here.leases.renew_one(_token(here), run_id, body))


async def take_lease(here: Here, run_id: RunPath, body: bodies.RenewOneBody) -> Response:
    """Take over, under a new token, what a worker of the same host has held under `token`."""
    return reply(await here.leases.take(_token(here), run_id, body))


async def look_at_lease(here: Here, run_id: RunPath, body: bodies.Call) -> Response:
    """A run that a worker of the caller's host holds, even by a lease that has run out."""
    return reply(await here.leases.look(_token(here), run_id, body))


async def get_lease_facts(here: Here, run_id: RunPath, body: bodies.FactsBody) -> Response:
    """What is true of a run that the worker holds, for workers that have the engine."""
    return reply(await here.leases.facts(_token(here), run_id, body))


async def list_lease_requests(
    here: Here, run_id: RunPath, query: Annotated[RequestQuery, Query()]
) -> Response:
    """What people ask of a run: pending requests with an id above `after`, waiting for one at most `wait_s`."""
    check_id("run", run_id)
    body = bodies.WatchBody(
        worker=query.worker, tokens={run_id: query.token}, seen={run_id: query.after}, wait_s=query.wait_s
    )
    return reply(await here.leases.requests(_token(here), run_id, body))


async def report_events(here: Here, run_id: RunPath, body: bodies.EventsBody) -> Response:
    """Record what the agent did. The server numbers and stamps the events; only those that move nothing are taken.

    `batch` counts 1, 2, 3 … for each lease: the same batch again is answered again and changes nothing, another
    number is 409 `batch_out_of_order`. The first report of a lease begins a turn. `after_seq`, where it is given,
    must be the run's last event. `requests` in the answer are what people ask meanwhile.
    """
    return reply(await here.leases.events(_token(here), run_id, body))


async def acknowledge_lease(here: Here, run_id: RunPath, body: bodies.AckBody) -> Response:
    """End the turn and the lease: `outcome` is `completed`, `failed` or `released`. Batches count as for events.

    What follows is the server's to decide, by the run's mode, limits and completion: it ends, or is queued for its
    next turn, or for another try. A run that is being cancelled ends so whatever the outcome was.
    """
    return reply(await here.leases.ack(_token(here), run_id, body))


async def give_up_lease(here: Here, run_id: RunPath, body: bodies.GiveUpBody) -> Response:
    """End a run that its worker cannot carry out at all: it is failed."""
    return reply(await here.leases.give_up(_token(here), run_id, body))


def _token(here: Context) -> int:
    """The access token that the worker is known by."""
    if here.caller.principal.token_pk is None:
        raise Forbidden("leases need a token of their own")
    return here.caller.principal.token_pk


_lease = partial(Operation, tag="leases", method="POST", model=lease_schema.Answer, refusals=(409, 507))
_ONE: Final = f"{API}/leases/{{run_id}}"
OPERATIONS: Final = (
    _lease(path=f"{API}/leases", endpoint=lease_runs, summary="Lease runs", model=lease_schema.GrantModel),
    _lease(path=f"{API}/leases/begin", endpoint=begin_worker, summary="Begin as the worker of a host"),
    _lease(path=f"{API}/leases/end", endpoint=end_worker, summary="End as a worker"),
    _lease(
        path=f"{API}/leases/renew", endpoint=renew_leases, summary="Renew leases", model=lease_schema.RenewalModel
    ),
    _lease(
        path=f"{API}/leases/watch", endpoint=watch_leases, summary="Wait for news", model=lease_schema.NewsModel
    ),
    _lease(path=f"{API}/leases/hand-over", endpoint=hand_over_leases, summary="Leave agents to the next worker"),
    _lease(path=f"{API}/leases/show", endpoint=show_fragments, summary="Show live text", model=lease_schema.ShownModel),
    _lease(path=f"{_ONE}/renew", endpoint=renew_lease, summary="Renew a lease", model=lease_schema.RenewalModel),
    _lease(
        path=f"{_ONE}/take", endpoint=take_lease, summary="Take over on the same host",
        model=lease_schema.LeaseModel,
    ),
    _lease(path=f"{_ONE}/look", endpoint=look_at_lease, summary="Look at a leased run"),
    _lease(path=f"{_ONE}/facts", endpoint=get_lease_facts, summary="Facts of a leased run"),
    _lease(
        path=f"{_ONE}/requests", endpoint=list_lease_requests, summary="Requests to a leased run", method="GET",
        model=lease_schema.RequestsModel,
    ),
    _lease(
        path=f"{_ONE}/events", endpoint=report_events, summary="Report progress", model=lease_schema.ProgressModel
    ),
    _lease(
        path=f"{_ONE}/ack", endpoint=acknowledge_lease, summary="End a turn", model=lease_schema.ProgressModel
    ),
    _lease(path=f"{_ONE}/give-up", endpoint=give_up_lease, summary="Give up a run"),
)  # fmt: skip
