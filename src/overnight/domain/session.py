"""A session: conversation and context that outlive runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from overnight.errors import Conflict, SessionExpired
from overnight.ids import MessageId, RunId, SessionId, ShareId

SessionState = Literal["active", "suspended", "completed", "expired"]
SessionInput = Literal["suspend", "resume", "complete", "expire"]
Phase = Literal["init", "planning", "execution", "review", "completed", "failed"]
Role = Literal["viewer", "operator", "decider"]
"""What somebody whom a session is shared with may do: look; also send messages and control; also decide approvals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One row of the sessions table; `pk` is also the key of its event stream."""

    pk: int
    id: SessionId
    owner: str
    name: str
    mode: str
    state: SessionState = "active"
    made_for_run: bool = True
    phase: Phase = "init"
    step: int | None = None
    version: int = 1
    """Counts the changes of name, variables and config, and of nothing else."""
    variables: Mapping[str, object] = field(default_factory=dict)
    plan: Mapping[str, object] | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    """Defaults for the runs of this session: fields of a run's spec."""
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMessage:
    """One message of a session's history."""

    role: Literal["user", "assistant", "system"]
    text: str
    at: int
    run_id: RunId | None = None
    turn: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """A message to a session that waits for its turn; it becomes part of the history when the turn begins."""

    pk: int
    id: MessageId
    session_pk: int
    text: str
    by: str
    created_at: int
    state: Literal["queued", "sent", "removed"] = "queued"
    run_id: RunId | None = None
    """The run whose turn took it."""
    turn: int | None = None
    """The number of that turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One row of the shares table: a session opened to a named user, or read-only to whoever has a link."""

    pk: int
    id: ShareId
    session_pk: int
    session_id: SessionId
    owner: str
    kind: Literal["user", "link"]
    user: str | None = None
    role: Role = "viewer"
    digest: str | None = None
    """SHA-256 of a link's code; the code itself is shown once."""
    by: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def usable(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now_ms < self.expires_at)


SESSION_MOVES: Final[Mapping[SessionState, Mapping[SessionInput, SessionState]]] = MappingProxyType(
    {
        "active": {
            "suspend": "suspended", "resume": "active", "complete": "completed", "expire": "expired",
        },
        "suspended": {"suspend": "suspended", "resume": "active", "expire": "expired"},
        "completed": {"resume": "active"},
        "expired": {},
    }
)  # fmt: skip
"""A new message or run is a `resume`. What leads back to the same state changes nothing and is no error."""
MAX_VARIABLES: Final = 256 * 1024
"""Bytes of a session's variables, as JSON."""
MAX_CONFIG: Final = 64 * 1024
"""Bytes of a session's configuration, as JSON."""
MAX_MESSAGE: Final = 256 * 1024
"""Bytes of a message of an agent that the history keeps; the event log has all of it."""
MAX_QUEUED: Final = 100
"""Messages of one session that may wait at once."""


def next_state(session: Session, input: SessionInput) -> SessionState:
    """The state after `input`. Raises Conflict, or SessionExpired for a session that is over for good."""
    found = SESSION_MOVES[session.state].get(input)
    if found is not None:
        return found
    extra = {"state": session.state, "input": input}
    if session.state == "expired":
        raise SessionExpired(
            f"{session.id} has expired; its history can still be read", mend="make a new session", extra=extra
        )
    raise Conflict(f"a session that is {session.state} does not accept {input!r}", extra=extra)
