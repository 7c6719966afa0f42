"""What approvals look like, for the OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from overnight.wire.v1.schema import Cursor, Resource, Time


class RuleModel(Resource):
    """A standing answer: it matches an action when every field that is there matches."""

    effect: Literal["allow", "ask", "reject"]
    tool: str | None = None
    argv: list[str] | None = None
    command: str | None = None
    path: str | None = None
    host: str | None = None
    exact: bool = False


class ApprovalOption(Resource):
    """One way to decide. `rule`: what this option would write for the session."""

    id: str
    label: str
    kind: Literal[
        "allow_once", "allow_always", "reject_once", "reject_always", "raise", "finish", "cancel", "answer"
    ]
    rule: RuleModel | None = None


class DecisionModel(Resource):
    """What was decided, and by whom; `system` when nobody decided in time."""

    option: str
    feedback: str | None
    changes: dict[str, Any] | None
    by: str


class ApprovalModel(Resource):
    """A question to a person. `digest` stands for exactly what will happen, and comes with the decision."""

    id: str
    owner: str
    run_id: str
    session_id: str
    kind: Literal["plan", "step", "tool_call", "file_edit", "command", "question", "budget", "error_recovery"]
    title: str
    context: dict[str, Any]
    digest: str
    options: list[ApprovalOption]
    state: Literal["pending", "resolved", "expired", "cancelled"]
    decision: DecisionModel | None
    default_option: str
    expires_at: Time
    created_at: Time
    resolved_at: Time | None


class ApprovalList(Resource):
    """A page of approvals, newest first."""

    items: list[ApprovalModel]
    next_cursor: Cursor
