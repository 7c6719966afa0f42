"""Runs for clients of the OpenAI Responses API: reading only, whole or as a stream."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from overnight.errors import InvalidCursor
from overnight.ids import RunId
from overnight.server import responses
from overnight.server.connected import Attachment
from overnight.server.context import Here, reply
from overnight.server.routes.stream import LastEventId, standing
from overnight.server.routing import API, Operation, RunPath
from overnight.wire import sse
from overnight.wire.responses import Position
from overnight.wire.v1.document import Document

_Truth = Literal["true", "false"]


class ResponseQuery(Document):
    """How a response is read. `include_obfuscation` changes nothing: text is never padded here."""

    stream: _Truth = "false"
    starting_after: Annotated[
        int,
        Field(
            ge=0, le=(1 << 53) - 1, description="The sequence number of the last event that was dealt with."
        ),
    ] = 0
    include_obfuscation: _Truth = "false"


async def get_response(
    here: Here, run_id: RunPath, query: Annotated[ResponseQuery, Query()], last_event_id: LastEventId = None
) -> Response:
    """A run as a response of the OpenAI Responses API: give its clients `…/api/v1/openai` as their base URL.

    With `stream=true` server-sent events, from the beginning or behind `starting_after`, text as it is written. What
    the schema has no words for is left out.
    """
    if query.stream == "false":
        run = await here.services.uow.read(lambda tx: tx.runs.get(RunId(run_id), here.owner))
        return reply(await here.parts.responses.whole(run))
    at = _position(last_event_id, query.starting_after)
    what = Attachment(caller=here.caller, target=run_id)
    here.parts.connections.check(what)
    run, mark = await here.services.uow.read(lambda tx: standing(tx, RunId(run_id), here.owner))
    responses.check_position(at, mark)
    if responses.is_told(run, at, mark):
        # Not 204: the clients take an answer without a body for a broken stream.
        return Response(sse.OPENED + sse.end(mark.last), headers=_HEADERS, media_type="text/event-stream")
    what = Attachment(caller=here.caller, target=run_id, session_id=run.session_id)
    return await responses.told(
        here.parts.responses, here.services.follower, here.parts.connections, run, at, what
    )


def _position(last_event_id: str | None, starting_after: int) -> Position:
    """Our own cursor goes before a sequence number, as the header does everywhere. Raises InvalidCursor."""
    if not last_event_id:
        return Position.of(starting_after)
    seq = sse.cursor(last_event_id, None)
    if seq is None:
        raise InvalidCursor("a response is told from its beginning, or behind a number")
    return Position.after(seq)


_HEADERS: Final = {name.decode(): value.decode() for name, value in sse.HEADERS[1:]}
_get = partial(Operation, tag="openai", method="GET")
OPERATIONS: Final = (
    _get(
        path=f"{API}/openai/responses/{{run_id}}", endpoint=get_response, summary="Read a run as an OpenAI response",
        media="application/json", refusals=(410, 429),
        schema={"type": "object", "description": "A `response` of the OpenAI Responses API; as a stream, its events."},
    ),
)  # fmt: skip
