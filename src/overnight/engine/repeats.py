"""A request that comes again under its Idempotency-Key: the same one is answered as before, another is refused."""

from __future__ import annotations

from overnight.errors import IdempotencyKeyReused
from overnight.ports.tables import Idempotency


def check_same(earlier: Idempotency, asked: Idempotency, **made: str) -> None:
    """Raise IdempotencyKeyReused when the key came with another body; `made` is what that request has made."""
    if earlier.body_hash != asked.body_hash:
        raise IdempotencyKeyReused(
            f"the key {asked.key[:80]!r} came with another body before",
            mend="use a fresh key for a new request",
            extra=made,
        )
