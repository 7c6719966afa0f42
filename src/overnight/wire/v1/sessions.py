"""Sessions, their messages and shares as they travel, and the bodies of requests about them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from overnight.clock import rfc3339
from overnight.domain.session import QueuedMessage, Role, Session, SessionMessage, SessionState, Share
from overnight.domain.spec import ModeName
from overnight.wire.v1.commands import words
from overnight.wire.v1.document import Document
from overnight.wire.v1.runs import time

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
UserName = Annotated[str, StringConstraints(pattern=r"^usr_[a-z0-9_]{1,40}$")]
Lifetime = Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)]


class SessionBody(Document):
    """`POST /sessions`. `config` holds fields of a run: what its runs do not say themselves, they take from there."""

    name: Name | None = None
    mode: ModeName = "chat"
    variables: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)


class SessionPatch(Document):
    """`PATCH /sessions/{id}`: each field that is given takes the place of the old one. `version`: the one last seen."""

    name: Name | None = None
    variables: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    version: Annotated[int, Field(ge=1)] | None = None


class SessionQuery(Document):
    """Filters and the page."""

    state: Annotated[list[SessionState], BeforeValidator(words), Field(max_length=4)] = Field(
        default_factory=list
    )
    mode: ModeName | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(max_length=100)] | None = None


class HistoryQuery(Document):
    """The end of the history, or what comes before message number `before`."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: Annotated[int, Field(ge=1, le=(1 << 62) - 1)] | None = None


class MessageBody(Document):
    """`POST /sessions/{id}/messages`: for a turn of its own, or (`now`) into the run that goes on."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=200_000)]
    when: Literal["after_turn", "now"] = "after_turn"

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("the text is blank")
        if "\x00" in text:
            raise ValueError("the text contains a NUL character")
        return text


class ShareBody(Document):
    """`POST /sessions/{id}/share`: with a `user` in a `role`, or by a `link` that anybody may read with."""

    user: UserName | None = None
    role: Role = "viewer"
    link: Literal[True] | None = None
    expires_s: Lifetime | None = None

    @model_validator(mode="after")
    def _one_way(self) -> ShareBody:
        if (self.user is None) == (self.link is None):
            raise ValueError("name a `user`, or say `link: true`")
        if self.link and self.role != "viewer":
            raise ValueError("a link is for reading alone")
        return self


def session_resource(session: Session, *, expires_at: int | None) -> dict[str, object]:
    """A session. `expires_at`: when it will expire if nobody touches it; null when it will not."""
    return {
        "id": session.id,
        "owner": session.owner,
        "name": session.name,
        "mode": session.mode,
        "state": session.state,
        "phase": session.phase,
        "step": session.step,
        "version": session.version,
        "variables": dict(session.variables),
        "plan": None if session.plan is None else dict(session.plan),
        "config": dict(session.config),
        "created_at": rfc3339(session.created_at),
        "updated_at": rfc3339(session.updated_at),
        "expires_at": time(expires_at),
    }


def history_entry(message: SessionMessage) -> dict[str, object]:
    """One message of a history."""
    return {
        "role": message.role,
        "text": message.text,
        "at": rfc3339(message.at),
        "run_id": message.run_id,
        "turn": message.turn,
    }


def message_resource(message: QueuedMessage) -> dict[str, object]:
    """A message that was posted: `queued` until a turn begins with it, then `sent`."""
    return {
        "id": message.id,
        "text": message.text,
        "by": message.by,
        "state": message.state,
        "run_id": message.run_id,
        "turn": message.turn,
        "created_at": rfc3339(message.created_at),
    }


def share_resource(share: Share) -> dict[str, object]:
    """A share without anything that could be used to come in."""
    return {
        "id": share.id,
        "session_id": share.session_id,
        "kind": share.kind,
        "user": share.user,
        "role": share.role,
        "by": share.by,
        "created_at": rfc3339(share.created_at),
        "expires_at": time(share.expires_at),
        "revoked_at": time(share.revoked_at),
    }
