"""A session: conversation and context that outlive runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overnight.ids import RunId, SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One row of the sessions table; `pk` is also the key of its event stream."""

    pk: int
    id: SessionId
    owner: str
    name: str
    mode: str
    state: Literal["active", "suspended", "completed", "expired"] = "active"
    made_for_run: bool = True
    version: int = 1
    variables: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
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
