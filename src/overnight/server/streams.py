"""One client that is attached to an event stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from overnight.engine.follow import Reader
from overnight.server.connected import Connected, Kind
from overnight.wire import sse


@dataclass(slots=True, eq=False, kw_only=True)
class OpenStream(Connected):
    """Its reader, and what is to be said on it besides."""

    reader: Reader[Any]
    pending_bytes: int
    keepalive_due: bool = False
    goodbye: bytes | None = sse.CLOSING
    """The last words when it is ended from our side; None when there is nobody left to hear them."""
    presence: bytes | None = None
    """To be shown next."""
    shown: bytes | None = None
    """The presence that was shown last."""

    @property
    def kind(self) -> Kind:
        """See `Connected`."""
        return "sse"

    def sending(self, deadline: asyncio.Timeout) -> None:
        """A send begins: it is given up at its deadline, or when too much has piled up behind it."""
        before = self.reader.collected_bytes

        def look() -> None:
            if self.reader.collected_bytes - before > self.pending_bytes:
                deadline.reschedule(asyncio.get_running_loop().time())

        self.reader.on_nudge = look

    def sent(self, size: int) -> None:
        """The send is over."""
        self.reader.on_nudge = None
        self.delivered += size
        self.keepalive_due = False

    def tick(self) -> None:
        """See `Connected`."""
        self.keepalive_due = True
        self.reader.nudge()

    def show(self, presence: bytes) -> None:
        """See `Connected`."""
        self.presence = None if presence == self.shown else presence
        if self.presence is not None:
            self.reader.nudge()

    def take_presence(self) -> bytes | None:
        """What is to be shown now, once."""
        found, self.presence = self.presence, None
        self.shown = found or self.shown
        return found

    def end(self, *, replaced: bool = False) -> None:
        """See `Connected`."""
        if replaced:
            self.goodbye = sse.REPLACED
        self.reader.close()

    def leave(self) -> None:
        """The client left."""
        self.goodbye = None
        self.reader.close()
