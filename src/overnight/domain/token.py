"""Access tokens. Only a hash is stored; the secret is shown once."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal

from overnight.ids import TokenId

TokenKind = Literal["user", "worker", "agent"]
PREFIX = "ovn_"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """One row of the tokens table. `digest` is the SHA-256 of the secret, in hex: 256 random bits need no slow hash."""

    pk: int
    id: TokenId
    owner: str
    name: str
    kind: TokenKind
    digest: str
    created_at: int
    last_used_at: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None

    def usable(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now_ms < self.expires_at)


def new_secret() -> str:
    """A fresh secret of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
