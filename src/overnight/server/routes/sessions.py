"""Sessions: make, look at, change, suspend, resume, delete; their histories, runs and streams."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Final

from fastapi import Body, Query
from pydantic import Field
from starlette.responses import Response

from overnight.domain.session import Session
from overnight.engine.sessions import Change, Draw
from overnight.ids import SessionId
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import RunFilter, RunPage, StreamMark
from overnight.ports.unit_of_work import Transaction
from overnight.server.context import Context, Here, listed, reply
from overnight.server.routes.stream import (
    RENDERINGS,
    LastEventId,
    OvernightClient,
    StreamQuery,
    attached,
    beginning,
    streamed,
)
from overnight.server.routing import API, IdempotencyKey, Operation, SessionPath, idempotency_of
from overnight.server.sse import EventStream
from overnight.wire import page, sse
from overnight.wire.v1 import schema, session_schema
from overnight.wire.v1.document import Document
from overnight.wire.v1.runs import run_summary
from overnight.wire.v1.sessions import (
    HistoryQuery,
    SessionBody,
    SessionPatch,
    SessionQuery,
    history_entry,
    session_resource,
)

_EXAMPLES: Final = {
    "smallest": {"value": {}},
    "with defaults for its runs": {
        "value": {
            "name": "Parser",
            "mode": "chat",
            "variables": {"branch": "grammar-2"},
            "config": {"backend": "codex", "workspace": "/home/ada/parser", "limits": {"turns": 20}},
        }
    },
}


class RunsQuery(Document):
    """The page."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(max_length=100)] | None = None


async def list_modes(here: Here) -> Response:
    """What the `mode` of a run or session may be: the built-in ones, then the operator's profiles."""
    return listed([entry.to_json() for entry in here.services.modes.offered()])


async def create_session(
    here: Here,
    body: Annotated[SessionBody, Body(openapi_examples=_EXAMPLES)],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """A new session, without any run yet."""
    asked = Draw(name=body.name, mode=body.mode, variables=body.variables, config=body.config)
    session, created = await here.services.sessions.create(
        asked,
        here.caller.principal,
        idempotency=idempotency_of("POST /sessions", idempotency_key, body),
    )
    headers = {"Location": f"{API}/sessions/{session.id}"}
    if not created:
        headers["Idempotent-Replayed"] = "true"
    return reply(_resource(here, session), 201, headers)


async def list_sessions(here: Here, query: Annotated[SessionQuery, Query()]) -> Response:
    """Newest first: the caller's own, and those that are shared with the caller. `text` is looked for in the name."""
    wanted = SessionFilter(owner=here.owner, states=tuple(query.state), mode=query.mode, text=query.text)
    found, following = await here.services.sessions.page(
        wanted, limit=query.limit, after=page.decode(query.cursor)
    )
    return listed([_resource(here, session) for session in found], page.encode(following))


async def get_session(here: Here, session_id: SessionPath) -> Response:
    """One session, in whatever state."""
    return reply(
        _resource(here, await here.services.sessions.get(SessionId(session_id), here.caller.principal))
    )


async def patch_session(here: Here, session_id: SessionPath, body: SessionPatch) -> Response:
    """Change name, variables or config. With a `version` that is no longer the present one: 409 `stale_version`."""
    asked = Change(name=body.name, variables=body.variables, config=body.config, version=body.version)
    changed = await here.services.sessions.patch(SessionId(session_id), asked, here.caller.principal)
    return reply(_resource(here, changed))


async def get_history(
    here: Here, session_id: SessionPath, query: Annotated[HistoryQuery, Query()]
) -> Response:
    """What was said, oldest first: the last messages, or with `before` the ones before that number."""
    found = await here.services.sessions.history(
        SessionId(session_id), here.caller.principal, limit=query.limit, before=query.before
    )
    items = [history_entry(message) for message in found.messages]
    following = None if found.before is None else str(found.before)
    return reply({"items": items, "total": found.total, "next_cursor": following})


async def suspend_session(here: Here, session_id: SessionPath) -> Response:
    """Put an idle session aside: it expires later, and a message, a run or `resume` brings it back. Idempotent."""
    return reply(
        _resource(here, await here.services.sessions.suspend(SessionId(session_id), here.caller.principal))
    )


async def resume_session(here: Here, session_id: SessionPath) -> Response:
    """Make a suspended or completed session active again. Idempotent."""
    return reply(
        _resource(here, await here.services.sessions.resume(SessionId(session_id), here.caller.principal))
    )


async def delete_session(here: Here, session_id: SessionPath) -> Response:
    """Remove a session without a live run, with its runs, events, approvals, messages, shares and files."""
    session = await here.services.sessions.get(SessionId(session_id), here.caller.principal)
    await here.services.sessions.delete(session.id, here.caller.principal)
    here.parts.authenticator.unshared(session.pk)
    here.parts.connections.end_session(session.id)
    return Response(status_code=204)


async def list_session_runs(
    here: Here, session_id: SessionPath, query: Annotated[RunsQuery, Query()]
) -> Response:
    """The session's runs, newest first."""
    after = page.decode(query.cursor)

    def unit(tx: Transaction) -> RunPage:
        session = tx.sessions.get(SessionId(session_id), here.owner)
        return tx.runs.page(RunFilter(session_id=session.id), limit=query.limit, after=after)

    found = await here.services.uow.read(unit)
    return listed([run_summary(run) for run in found.runs], page.encode(found.next))


async def stream_session(
    here: Here,
    session_id: SessionPath,
    query: Annotated[StreamQuery, Query()],
    last_event_id: LastEventId = None,
    overnight_client: OvernightClient = None,
) -> Response:
    """Server-sent events of the session itself: messages, state changes, its runs' beginnings and ends.

    What happens inside a run is in the run's own stream. This one never ends by itself: a session can always be
    reopened. It ends when the session is deleted.
    """
    what = attached(here, session_id, query, overnight_client)
    cursor = sse.cursor(last_event_id, query.after)
    session, mark = await here.services.uow.read(lambda tx: _standing(tx, SessionId(session_id), here.owner))
    first, after = beginning(cursor, mark, query)
    return EventStream(
        here.services.follower.events(session, after), RENDERINGS[query.named, query.deltas],
        here.parts.connections, replace(what, session_id=session.id), first=first,
    )  # fmt: skip


def _standing(tx: Transaction, session_id: SessionId, owner: str) -> tuple[Session, StreamMark]:
    session = tx.sessions.get(session_id, owner)
    return session, tx.events.mark(session.pk)


def _resource(here: Context, session: Session) -> dict[str, object]:
    return session_resource(session, expires_at=here.services.session_policy.expires_at(session))


_session = partial(Operation, tag="sessions")
_ONE: Final = f"{API}/sessions/{{session_id}}"
OPERATIONS: Final = (
    _session(
        method="GET", path=f"{API}/sessions/modes", endpoint=list_modes, summary="List modes",
        model=session_schema.ModeList,
    ),
    _session(
        method="POST", path=f"{API}/sessions", endpoint=create_session, summary="Make a session", status=201,
        model=session_schema.SessionModel, refusals=(507,),
    ),
    _session(
        method="GET", path=f"{API}/sessions", endpoint=list_sessions, summary="List sessions",
        model=session_schema.SessionList,
    ),
    _session(
        method="GET", path=_ONE, endpoint=get_session, summary="Look at a session",
        model=session_schema.SessionModel,
    ),
    _session(
        method="PATCH", path=_ONE, endpoint=patch_session, summary="Change a session",
        model=session_schema.SessionModel, refusals=(409, 507),
    ),
    _session(
        method="GET", path=f"{_ONE}/history", endpoint=get_history, summary="Read the history",
        model=session_schema.HistoryModel,
    ),
    _session(
        method="POST", path=f"{_ONE}/suspend", endpoint=suspend_session, summary="Suspend a session",
        model=session_schema.SessionModel, refusals=(409,),
    ),
    _session(
        method="POST", path=f"{_ONE}/resume", endpoint=resume_session, summary="Resume a session",
        model=session_schema.SessionModel, refusals=(409,),
    ),
    _session(
        method="DELETE", path=_ONE, endpoint=delete_session, summary="Delete a session", status=204,
        refusals=(409,),
    ),
    _session(
        method="GET", path=f"{_ONE}/runs", endpoint=list_session_runs, summary="List a session's runs",
        model=schema.RunList,
    ),
    streamed(path=f"{_ONE}/stream", endpoint=stream_session, summary="Follow a session", refusals=(410, 429)),
)  # fmt: skip
