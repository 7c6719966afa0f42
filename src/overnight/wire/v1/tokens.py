"""Access tokens as they travel."""

from __future__ import annotations

from overnight.clock import rfc3339
from overnight.domain.token import AccessToken
from overnight.wire.v1.runs import time


def token_resource(token: AccessToken, *, now_ms: int) -> dict[str, object]:
    """A token without anything that could be used as one."""
    return {
        "id": token.id,
        "name": token.name,
        "owner": token.owner,
        "kind": token.kind,
        "usable": token.usable(now_ms),
        "created_at": rfc3339(token.created_at),
        "last_used_at": time(token.last_used_at),
        "expires_at": time(token.expires_at),
        "revoked_at": time(token.revoked_at),
    }
