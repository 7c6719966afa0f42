"""What a run did to its workspace."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, Literal

from fastapi import Header, Query
from pydantic import Field
from starlette.responses import Response

from overnight.engine.diff import DiffAnswer
from overnight.errors import InvalidInput
from overnight.server.context import Here, reply
from overnight.server.routing import API, Operation, RunPath
from overnight.wire.v1 import schema
from overnight.wire.v1.document import Document

Scope = Literal["run", "turn", "uncommitted"]
NoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=300)]


class DiffQuery(Document):
    """Between which states, and of which file; without `path` the statistics of all files."""

    scope: Scope = "run"
    turn: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    path: Annotated[str, Field(min_length=1, max_length=4000)] | None = None


class FilesQuery(Document):
    """Between which states."""

    scope: Scope = "run"
    turn: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None


async def get_diff(
    here: Here, run_id: RunPath, query: Annotated[DiffQuery, Query()], if_none_match: NoneMatch = None
) -> Response:
    """Statistics of all changed files, or the patch of one. Computed by the server, capped, with an ETag."""
    _check_turn(query.scope, query.turn)
    answer = await here.services.diffs.diff(
        run_id, here.owner, scope=query.scope, turn=query.turn, path=query.path
    )
    return _reply(answer, if_none_match)


async def list_files(
    here: Here, run_id: RunPath, query: Annotated[FilesQuery, Query()], if_none_match: NoneMatch = None
) -> Response:
    """The changed files with their statistics."""
    _check_turn(query.scope, query.turn)
    answer = await here.services.diffs.files(run_id, here.owner, scope=query.scope, turn=query.turn)
    return _reply(answer, if_none_match)


def _check_turn(scope: str, turn: int | None) -> None:
    if scope == "turn" and turn is None:
        raise InvalidInput("the scope `turn` needs a `turn`")
    if scope != "turn" and turn is not None:
        raise InvalidInput("`turn` goes with the scope `turn` only")


def _reply(answer: DiffAnswer, known: str | None) -> Response:
    headers = {"ETag": f'"{answer.etag}"', "Cache-Control": "private, no-cache"}
    if known is not None and headers["ETag"] in [
        part.strip().removeprefix("W/") for part in known.split(",")
    ]:
        return Response(status_code=304, headers=headers)
    return reply(answer.document, headers=headers)


_change = partial(
    Operation,
    tag="changes",
    method="GET",
    refusals=(409,),
    more={304: {"description": "Not changed since that ETag"}},
)
OPERATIONS: Final = (
    _change(
        path=f"{API}/runs/{{run_id}}/diff", endpoint=get_diff, summary="What changed", model=schema.DiffModel
    ),
    _change(
        path=f"{API}/runs/{{run_id}}/files",
        endpoint=list_files,
        summary="Which files",
        model=schema.DiffModel,
    ),
)
