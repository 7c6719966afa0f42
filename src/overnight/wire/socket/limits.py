"""What a connection bears. The server says its own in `welcome`, and both sides keep to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from overnight.errors import InvalidPayload


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection. Every queue and table in the core is bounded by one of them."""

    max_message_bytes: int = 1024 * 1024
    """One message of the transport, which may hold several envelopes."""
    max_batch: int = 256
    """Envelopes in one message."""
    window: int = 256
    """Events that may be under way in a scope before its reader grants more."""
    queue: int = 1024
    """Messages that wait in a scope for credit; beyond them the producer waits, or the scope fails."""
    queue_bytes: int = 4 * 1024 * 1024
    """Their payloads together."""
    keep_bytes: int = 1024 * 1024
    """Sent payloads of one scope that are kept until they are known to have arrived, should the connection be cut."""
    scopes: int = 1000
    """Scopes that are open at once."""
    requests: int = 1024
    """Requests that have no reply yet."""
    tombstones: int = 4096
    """Scopes that are over and still known as such, so that late messages do not bring them back."""
    streams: int = 100
    """Model streams that are open at once."""
    stream_s: int = 300
    """How long a model stream may take."""
    resume_s: int = 60
    """How long scopes without a log outlive a cut."""
    ping_s: int = 20
    """A quiet peer is pinged after so long, and is dead when it stays quiet for as long again."""
    hello_s: int = 5
    """How long a connection may take to say hello."""
    hello_bytes: int = 4096
    """The longest hello of a peer that has shown no credential before."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise InvalidPayload(f"the limit {field.name} must be an integer from 1")

    def as_payload(self) -> dict[str, int]:
        """As `welcome` carries them."""
        return asdict(self)

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Limits:
        """What `welcome` carries; what it leaves out is as usual here, what it adds is ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in payload.items() if name in known})
