"""Connections as they travel."""

from __future__ import annotations

from overnight.clock import rfc3339
from overnight.domain.connection import Connection

FRESH_MS = 90_000
"""A server beats every 30 s: one that was silent for this long may be gone, and its connections with it."""


def connection_resource(connection: Connection, *, now_ms: int) -> dict[str, object]:
    """A connection, with its freshness computed now. What only its own server knows is null."""
    return {
        "id": connection.id,
        "kind": connection.kind,
        "target": connection.target,
        "owner": connection.owner,
        "actor": connection.actor,
        "client": connection.client,
        "server": connection.server,
        "connected_at": rfc3339(connection.connected_at),
        "seen_at": rfc3339(connection.heartbeat_at),
        "fresh": now_ms - connection.heartbeat_at < FRESH_MS,
        "peer": None,
        "active_at": None,
        "delivered": None,
    }
