"""What was recorded of a run: events, turns, prompts, raw output."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from overnight.engine.turn_files import Name
from overnight.errors import NotFound
from overnight.ids import RunId
from overnight.ports.unit_of_work import Transaction
from overnight.server.context import Context, Here, listed
from overnight.server.files import FileResponse, open_regular
from overnight.server.routing import API, NumberPath, Operation, RunPath
from overnight.wire.v1 import schema
from overnight.wire.v1.document import Document
from overnight.wire.v1.runs import turn_resource

Seq = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]


class EventQuery(Document):
    """Which events; `after` and `before` are exclusive. `types` is a list with commas, or repeated."""

    after: Seq | None = None
    before: Seq | None = None
    order: Literal["asc", "desc"] = "asc"
    types: Annotated[list[Annotated[str, Field(max_length=500)]], Field(default_factory=list, max_length=100)]
    turn: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 200


class OutputQuery(Document):
    """Which raw output; the last attempt of the turn unless one is named."""

    stream: Literal["stdout", "stderr"] = "stdout"
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


async def list_events(here: Here, run_id: RunPath, query: Annotated[EventQuery, Query()]) -> Response:
    """The log as JSON. `next_cursor` is the seq to give as `after` (as `before` where the order is desc)."""
    types = tuple(word for text in query.types for word in text.split(",") if word)

    def unit(tx: Transaction) -> list[tuple[int, bytes]]:
        found = tx.events.select(
            tx.runs.get(RunId(run_id), here.owner).pk, after=query.after, before=query.before,
            descending=query.order == "desc", types=types, turn=query.turn, limit=query.limit,
        )  # fmt: skip
        return [(event.seq, event.body) for event in found]

    found = await here.services.uow.read(unit)
    more = b'"%d"' % found[-1][0] if len(found) == query.limit else b"null"
    body = b'{"items":[%b],"next_cursor":%b}' % (b",".join([body for _, body in found]), more)
    return Response(body, media_type="application/json")


async def list_turns(here: Here, run_id: RunPath) -> Response:
    """Every attempt at every turn, oldest first."""
    turns = await here.services.uow.read(lambda tx: tx.turns.page(tx.runs.get(RunId(run_id), here.owner).pk))
    return listed([turn_resource(turn) for turn in turns])


async def get_turn_prompt(here: Here, run_id: RunPath, number: NumberPath) -> Response:
    """The prompt that the turn was given, as text."""
    return await _file(here, run_id, number, None, "prompt.md")


async def get_turn_output(
    here: Here, run_id: RunPath, number: NumberPath, query: Annotated[OutputQuery, Query()]
) -> Response:
    """What the turn's program has printed so far, without secrets: a download, because it may hold anything else."""
    return await _file(here, run_id, number, query.attempt, query.stream)


async def _file(here: Context, run_id: str, number: int, attempt: int | None, name: Name) -> Response:
    found = await here.services.turn_files.locate(RunId(run_id), here.owner, number, attempt, name)
    file = await asyncio.to_thread(open_regular, found.path)
    if file is None:
        raise found.elsewhere or NotFound(f"turn {number} has no {name}")
    called = f"{run_id}-{number}-{found.attempt}-{name.removesuffix('.md')}.txt"
    return FileResponse(file, called, found.redactor)


_log = partial(Operation, tag="log", method="GET")
OPERATIONS: Final = (
    _log(path=f"{API}/runs/{{run_id}}/events", endpoint=list_events, summary="Read the log", model=schema.EventList),
    _log(path=f"{API}/runs/{{run_id}}/turns", endpoint=list_turns, summary="List the turns", model=schema.TurnList),
    _log(
        path=f"{API}/runs/{{run_id}}/turns/{{number}}/prompt", endpoint=get_turn_prompt,
        summary="Read a turn's prompt", media="text/plain", refusals=(409,),
    ),
    _log(
        path=f"{API}/runs/{{run_id}}/turns/{{number}}/output", endpoint=get_turn_output,
        summary="Download a turn's raw output", media="text/plain", refusals=(409,),
    ),
)  # fmt: skip
