"""Somebody who is connected now: what every transport has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from overnight.domain.connection import Connection
from overnight.ids import ConnectionId, SessionId, WorkerId
from overnight.server.auth import Caller

Kind = Literal["sse", "socket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Who attaches to what."""

    caller: Caller
    target: str | None
    """Id of the run or session; None for the summaries of all runs."""
    session_id: SessionId | None = None
    """The session among whose followers this counts."""
    client: str | None = None
    """The client's own name for itself."""
    presence: bool = False
    """Whether it wants to be told who else follows the session."""

    @property
    def purse(self) -> tuple[str, str]:
        """Whose limit it counts against: an agent cannot use up what its owner needs."""
        return self.caller.user, self.caller.principal.kind

    @property
    def seat(self) -> tuple[str, str, str, str | None] | None:
        """What a later connection of the same client takes over; None for a client without a name."""
        return None if self.client is None else (*self.purse, self.client, self.target)


@dataclass(slots=True, eq=False, kw_only=True)
class Connected(ABC):
    """One connection. `id`, `since` and `active_at` (wall milliseconds) are told by whoever makes it."""

    id: ConnectionId
    what: Attachment
    peer: str
    since: int
    active_at: int
    """When it was last sent something that it had asked for."""
    delivered: int = 0
    """Bytes."""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """The transport."""

    @abstractmethod
    def tick(self) -> None:
        """A keepalive interval has passed."""

    @abstractmethod
    def show(self, presence: bytes) -> None:
        """Tell it who follows its session: a JSON document, only the latest of which matters. Never blocks."""

    @abstractmethod
    def end(self, *, replaced: bool = False) -> None:
        """End it from our side; idempotent. `replaced`: another connection of the same client has taken its place."""

    def row(self, server: WorkerId, now_ms: int) -> Connection:
        """As the database keeps it."""
        caller = self.what.caller
        return Connection(
            id=self.id, server=server, owner=caller.user, actor=caller.principal.name, kind=self.kind,
            target=self.what.target, client=self.what.client, connected_at=self.since, heartbeat_at=now_ms,
        )  # fmt: skip
