"""Messages of the tool protocol, scope `tool:<execution>` and `conn`."""

from __future__ import annotations

from typing import Final

from overnight.wire.socket.catalog.message import MessageType

MESSAGES: Final[tuple[MessageType, ...]] = ()
