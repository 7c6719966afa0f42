"""Approvals as they travel."""

from __future__ import annotations

from overnight.clock import rfc3339
from overnight.domain.approval import Approval
from overnight.wire.v1.runs import time


def approval_resource(approval: Approval) -> dict[str, object]:
    """An approval with all that a person needs to decide."""
    return {
        "id": approval.id,
        "owner": approval.owner,
        "run_id": approval.run_id,
        "session_id": approval.session_id,
        "kind": approval.kind,
        "title": approval.title,
        "context": dict(approval.context),
        "digest": approval.digest,
        "options": [option.to_json() for option in approval.options],
        "state": approval.state,
        "decision": approval.decision.to_json() if approval.decision else None,
        "default_option": approval.default_option,
        "expires_at": rfc3339(approval.expires_at),
        "created_at": rfc3339(approval.created_at),
        "resolved_at": time(approval.resolved_at),
    }
