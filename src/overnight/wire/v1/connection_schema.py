"""What connections look like, for the OpenAPI description."""

from __future__ import annotations

from typing import Literal

from overnight.wire.v1.schema import Resource, Time


class ConnectionModel(Resource):
    """A stream or socket that is open; `peer`, `active_at` and `delivered` are known to its own server alone."""

    id: str
    kind: Literal["sse", "socket"]
    target: str | None
    owner: str
    actor: str
    client: str | None
    server: str
    connected_at: Time
    seen_at: Time
    fresh: bool
    peer: str | None
    active_at: Time | None
    delivered: int | None


class ConnectionList(Resource):
    """Open connections, oldest first."""

    items: list[ConnectionModel]
    next_cursor: None
