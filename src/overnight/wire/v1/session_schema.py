"""What sessions, messages and shares look like, for the OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from overnight.domain.session import Phase, Role, SessionState
from overnight.wire.v1.schema import Cursor, Resource, RunModel, Time

SessionIdField = Annotated[
    str, Field(pattern=r"^ses_[0-9a-z]{26}$", examples=["ses_01k0c3v9h4f6x8r2m5t7w9y1zb"])
]


class SessionModel(Resource):
    """A session: a conversation and its context, which outlive runs."""

    id: SessionIdField
    owner: str
    name: str
    mode: str
    state: SessionState
    phase: Phase
    step: int | None
    version: Annotated[int, Field(description="Counts changes of name, variables and config.")]
    variables: dict[str, Any]
    plan: dict[str, Any] | None
    config: dict[str, Any]
    created_at: Time
    updated_at: Time
    expires_at: Time | None


class SessionList(Resource):
    """A page of sessions, newest first: one's own, and those that are shared with the caller."""

    items: list[SessionModel]
    next_cursor: Cursor


class HistoryEntry(Resource):
    """One message of a history."""

    role: Literal["user", "assistant", "system"]
    text: str
    at: Time
    run_id: str | None
    turn: int | None


class HistoryModel(Resource):
    """A piece of a history, oldest first; `next_cursor` is the `before` of the piece before it."""

    items: list[HistoryEntry]
    total: int
    next_cursor: Annotated[str | None, Field(description="Give it back as `before`.")]


class ModeModel(Resource):
    """A mode, or a profile that the operator has made of one."""

    id: str
    label: str
    description: str
    supports_resume: bool
    supports_approvals: bool


class ModeList(Resource):
    """What a run's `mode` may be."""

    items: list[ModeModel]
    next_cursor: None


class MessageModel(Resource):
    """A message to a session."""

    id: str
    text: str
    by: str
    state: Literal["queued", "sent", "removed"]
    run_id: str | None
    turn: int | None
    created_at: Time


class MessageList(Resource):
    """The messages that wait, oldest first."""

    items: list[MessageModel]
    next_cursor: None


class PostedModel(Resource):
    """A message that was accepted, and the run that takes it."""

    message: MessageModel
    run: RunModel | None
    steer_how: Literal["inject", "interrupt", "queue"] | None


class ShareModel(Resource):
    """To whom a session is open."""

    id: str
    session_id: SessionIdField
    kind: Literal["user", "link"]
    user: str | None
    role: Role
    by: str
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class NewShare(ShareModel):
    """A new share; a link's `code` is in this answer and nowhere else, `path` is what a browser opens."""

    code: str | None
    path: str | None


class ShareList(Resource):
    """The shares that can be used now."""

    items: list[ShareModel]
    next_cursor: None
