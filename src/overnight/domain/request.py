"""Requests: what somebody authorised (or the server itself) asks of a run; the lease holder carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RequestKind = Literal["pause", "resume", "cancel", "steer", "decide"]
When = Literal["now", "after_turn"]
SteerHow = Literal["inject", "interrupt", "queue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. `name` is the actor written into the log (`usr_local`, a token's name, or `system`)."""

    owner: str
    name: str
    kind: Literal["user", "worker", "agent", "system"] = "user"
    token_pk: int | None = None


LOCAL_OWNER = "usr_local"
SYSTEM = Principal(owner=LOCAL_OWNER, name="system", kind="system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One row of the requests table, pending until its holder has acted on it."""

    pk: int
    run_pk: int
    kind: RequestKind
    body: Mapping[str, object] = field(default_factory=dict)
    """pause: `{when, reason}` · cancel: `{reason}` · steer: `{text, how, when}` · resume: `{reason}`."""
    actor: str
    created_at: int
