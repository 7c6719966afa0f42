"""A connection: somebody who follows a stream, or holds a socket, at this moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from overnight.ids import ConnectionId, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One row of the connections table. Times are wall milliseconds."""

    id: ConnectionId
    server: WorkerId
    """The process that holds it, by the id of its worker row."""
    owner: str
    actor: str
    kind: Literal["sse", "socket"]
    target: str | None = None
    """The run or session that is followed; None for the summaries of all runs."""
    client: str | None = None
    """The name that the client gave itself: a later connection of the same client to the same target replaces it."""
    connected_at: int
    heartbeat_at: int
