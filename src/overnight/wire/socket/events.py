"""What `Connection.receive` tells whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass

from overnight.errors import OvernightError
from overnight.wire.socket.catalog.message import MessageType
from overnight.wire.socket.envelope import Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message that is as it should be. Its `envelope.body` is the checked payload."""

    envelope: Envelope
    message: MessageType
    opened: bool = False
    """It has opened its scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A message of the other side was not taken; the nack, where one is due, is queued."""

    error: OvernightError
    scope: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The scope has credit again."""

    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """The scope is over on this side. `error`: why, where it was not the terminal that ended it."""

    scope: str
    error: OvernightError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Send what is left, then close the transport with this code."""

    code: int
    reason: str


Event = Received | Refused | Granted | Over | Closing
