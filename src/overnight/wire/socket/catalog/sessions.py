"""Messages of the agent protocol, scope `session:<id>`."""

from __future__ import annotations

from typing import Final

from overnight.wire.socket.catalog.message import MessageType

MESSAGES: Final[tuple[MessageType, ...]] = ()
