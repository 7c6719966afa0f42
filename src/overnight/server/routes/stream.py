"""Event streams: of one run, and the summaries of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Final, Literal

from fastapi import Header, Query
from pydantic import Field
from starlette.responses import Response

from overnight.domain.event import Recorded
from overnight.domain.run import Run
from overnight.errors import InvalidCursor, StreamTrimmed
from overnight.ids import RunId
from overnight.ports.tables import StreamMark
from overnight.ports.unit_of_work import Transaction
from overnight.server import responses
from overnight.server.connected import Attachment
from overnight.server.context import Here
from overnight.server.routing import API, Operation, RunPath
from overnight.server.sse import EventStream, Rendering
from overnight.wire import sse
from overnight.wire.responses import Position
from overnight.wire.v1.document import Document
from overnight.wire.v1.runs import run_summary

_POSITION: Final = {"pattern": "^(end|[0-9]{1,19})$"}
"""For the description alone: a wrong position has an error code of its own."""
After = Annotated[
    str,
    Field(max_length=40, description="A position, or `end` for new ones only.", json_schema_extra=_POSITION),
]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=40, description="Where to go on; goes before `after`."),
]
_CLIENT: Final = r"^[A-Za-z0-9._:-]{1,64}$"
ClientName = Annotated[
    str,
    Field(
        pattern=_CLIENT,
        description="The client's own name for itself: a new connection replaces its earlier one to the same stream.",
    ),
]
OvernightClient = Annotated[
    str | None,
    Header(
        alias="Overnight-Client", pattern=_CLIENT, description="The same as `client`, which goes before it."
    ),
]
Switch = Literal["0", "1"]


class StreamQuery(Document):
    """What a stream carries, and from where."""

    after: After | None = None
    deltas: Switch = "0"
    named: Switch = "0"
    presence: Switch = "0"
    on_gap: Literal["error", "event"] = "error"
    client: ClientName | None = None


class RunStreamQuery(StreamQuery):
    """The same for a run, in either of its shapes."""

    shape: Annotated[
        Literal["events", "responses"],
        Field(description="`responses`: the same log as events of the OpenAI Responses API."),
    ] = "events"


class SummaryQuery(Document):
    """Where the summaries begin."""

    after: After | None = None
    client: ClientName | None = None


RENDERINGS: Final[dict[tuple[Switch, Switch], Rendering[Recorded]]] = {
    (named, deltas): Rendering(
        key="named" if named == "1" else "plain",
        batch=sse.named_events if named == "1" else sse.events,
        fragments=deltas == "1",
    )
    for named in ("0", "1")
    for deltas in ("0", "1")
}


def attached(here: Here, target: str, query: StreamQuery, client: str | None) -> Attachment:
    """Who will follow `target`. Raises TooManyRequests."""
    what = Attachment(
        caller=here.caller, target=target, client=query.client or client, presence=query.presence == "1"
    )
    here.parts.connections.check(what)
    return what


def beginning(cursor: int | None, mark: StreamMark, query: StreamQuery) -> tuple[bytes, int]:
    """The first bytes of a stream, and the position after which its events begin; None: after all that there is.

    Raises InvalidCursor for a position that is not reached yet, StreamTrimmed for one that is no longer there.
    """
    after = mark.last if cursor is None else cursor
    if after > mark.last:
        raise InvalidCursor(f"there are {mark.last} events; {after} is not among them")
    if after >= mark.first - 1:
        return sse.OPENED, after
    if query.on_gap == "error":
        raise trimmed(after, mark)
    return sse.gap(mark.first, mark.last), mark.first - 1


async def stream_run(
    here: Here,
    run_id: RunPath,
    query: Annotated[RunStreamQuery, Query()],
    last_event_id: LastEventId = None,
    overnight_client: OvernightClient = None,
) -> Response:
    """Server-sent events of one run, from any position, without a gap or a repeat.

    Each frame has `id` (the seq) and `data` (the event). After the final event comes `event: end` with `[DONE]`; a
    client that comes back after that gets 204. Positions that were trimmed are refused with 410 before any byte.
    With `presence=1` an `event: presence` says who follows the run's session, whenever that changes.
    With `shape=responses` the data are Responses events; those of ours that have none come as `overnight.event`.
    """
    what = attached(here, run_id, query, overnight_client)
    cursor = sse.cursor(last_event_id, query.after)
    run, mark = await here.services.uow.read(lambda tx: standing(tx, RunId(run_id), here.owner))
    if run.final and cursor in {None, mark.last}:
        return Response(status_code=204)
    what = replace(what, session_id=run.session_id)
    if query.shape == "responses":
        return await _as_responses(here, run, mark, mark.last if cursor is None else cursor, query, what)
    first, after = beginning(cursor, mark, query)
    return EventStream(
        here.services.follower.events(run, after), RENDERINGS[query.named, query.deltas],
        here.parts.connections, what, first=first,
    )  # fmt: skip


async def _as_responses(
    here: Here, run: Run, mark: StreamMark, after: int, query: RunStreamQuery, what: Attachment
) -> Response:
    at = Position.after(after)
    responses.refuse_gap(query.on_gap)
    responses.check_position(at, mark)
    return await responses.told(
        here.parts.responses, here.services.follower, here.parts.connections, run, at, what,
        named=query.named == "1", live=query.deltas == "1", extensions=True,
    )  # fmt: skip


async def stream_summaries(
    here: Here,
    query: Annotated[SummaryQuery, Query()],
    last_event_id: LastEventId = None,
    overnight_client: OvernightClient = None,
) -> Response:
    """Server-sent events with the summary of each run that changes; `id` is the position among all changes.

    A run that changes often is shown as it stands last. One such stream is enough for a whole screen of runs.
    """
    what = Attachment(caller=here.caller, target=None, client=query.client or overnight_client)
    here.parts.connections.check(what)
    cursor = sse.cursor(last_event_id, query.after)
    newest = await here.services.uow.read(lambda tx: tx.runs.last_change())
    after = newest if cursor is None else cursor
    if after > newest:
        raise InvalidCursor(f"the newest change is {newest}; {after} is not among them")
    return EventStream(
        here.services.follower.changes(here.owner, after), _SUMMARIES, here.parts.connections, what
    )


def standing(tx: Transaction, run_id: RunId, owner: str) -> tuple[Run, StreamMark]:
    """A run and both ends of its log. Raises NotFound."""
    run = tx.runs.get(run_id, owner)
    return run, tx.events.mark(run.pk)


def trimmed(after: int, mark: StreamMark) -> StreamTrimmed:
    """The refusal for a position whose events are gone."""
    return StreamTrimmed(
        f"the events after {after} have been trimmed; {mark.first} is the earliest that is left",
        mend="read the run's snapshot and go on from `latest`, or ask with on_gap=event",
        extra={"earliest": mark.first, "latest": mark.last},
    )


def _summary_frames(runs: Sequence[Run]) -> bytes:
    return b"".join([sse.summary(run.change, run_summary(run)) for run in runs])


_SUMMARIES: Final[Rendering[Run]] = Rendering(key="summaries", batch=_summary_frames)
_FRAME: Final = {
    "type": "object",
    "description": "A server-sent event.",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "The cursor: give it back as `Last-Event-ID`."},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
streamed: Final = partial(Operation, tag="streams", method="GET", media="text/event-stream", schema=_FRAME)
OPERATIONS: Final = (
    streamed(
        path=f"{API}/runs/{{run_id}}/stream", endpoint=stream_run, summary="Follow a run",
        refusals=(410, 429), more={204: {"description": "The run has ended and everything was read"}},
    ),
    streamed(path=f"{API}/stream", endpoint=stream_summaries, summary="Follow all runs", refusals=(429,)),
)  # fmt: skip
