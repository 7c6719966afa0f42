"""Who is connected, to this server process and to others."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from overnight.clock import rfc3339
from overnight.domain.connection import Connection
from overnight.ids import SessionId
from overnight.ports.unit_of_work import Transaction
from overnight.server.connected import Connected
from overnight.server.context import Context, Here, listed
from overnight.server.routing import API, Operation
from overnight.wire.v1 import connection_schema
from overnight.wire.v1.connections import connection_resource
from overnight.wire.v1.document import Document


class ConnectionQuery(Document):
    """Whose connections."""

    session_id: (
        Annotated[
            str,
            Field(
                min_length=1, max_length=64, description="Only who follows this session or one of its runs."
            ),
        ]
        | None
    ) = None


async def list_connections(here: Here, query: Annotated[ConnectionQuery, Query()]) -> Response:
    """Streams and sockets that are open now, oldest first; `fresh` is computed when it is asked for.

    The operator sees all; anybody else their own, and with `session_id` everybody who follows a session that they may
    see.
    """
    session_id = None if query.session_id is None else SessionId(query.session_id)
    rows = await here.services.uow.read(lambda tx: _rows(tx, here, session_id))
    found = [_own(here, one) for one in here.parts.connections if _is_asked_for(here, one, session_id)]
    now = here.services.clock.wall_ms()
    found += [connection_resource(row, now_ms=now) for row in rows if row.server != here.services.server_id]
    return listed(sorted(found, key=lambda one: str(one["connected_at"])))


def _rows(tx: Transaction, here: Context, session_id: SessionId | None) -> tuple[Connection, ...]:
    owner = None if here.caller.admin else here.owner
    if session_id is None:
        return tx.connections.all(owner)
    session = tx.sessions.get(session_id, owner)
    return tx.connections.following(session.id)


def _is_asked_for(here: Context, one: Connected, session_id: SessionId | None) -> bool:
    if session_id is not None:
        return one.what.session_id == session_id
    return here.caller.admin or one.what.caller.user == here.caller.user


def _own(here: Context, one: Connected) -> dict[str, object]:
    """Where somebody else sits is the operator's business alone."""
    now = here.services.clock.wall_ms()
    known = connection_resource(one.row(here.services.server_id, now), now_ms=now)
    near = here.caller.admin or one.what.caller.user == here.caller.user
    return known | {
        "peer": one.peer if near else None,
        "active_at": rfc3339(one.active_at),
        "delivered": one.delivered,
    }


OPERATIONS: Final = (
    Operation(
        tag="operation", method="GET", path=f"{API}/connections", endpoint=list_connections,
        summary="List connections", model=connection_schema.ConnectionList,
    ),
)  # fmt: skip
