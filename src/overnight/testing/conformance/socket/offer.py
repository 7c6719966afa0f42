"""What a server under test has to offer, so that there is something to judge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from overnight.wire.socket.catalog import CATALOG
from overnight.wire.socket.catalog.message import MessageType


class Wire(Protocol):
    """A transport to the server: whole messages of JSON text."""

    async def send(self, message: bytes) -> None:
        """Send one."""
        ...

    async def receive(self) -> bytes | str | None:
        """The next one; None at the end."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """End it in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message that may be sent: its type and its payload."""

    type: str
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """How to reach a server, and what it serves.

    `connect` opens a transport on which nothing has been said. `cut` breaks one without a word; closing stands for it
    where there is nothing better. `stream` opens `stream:<id>` and is answered, the same every time, by more than ten
    events and a terminal; `abort` ends one. `asked` is a request of the connection itself. Checks that need what is not
    there are passed over, and say so.
    """

    connect: Callable[[], Awaitable[Wire]]
    token: str | None = None
    cut: Callable[[Wire], Awaitable[None]] | None = None
    asked: Said | None = None
    stream: Said | None = None
    abort: Said | None = None
    wrong: Said | None = None
    """A message of a stream with a payload that its type does not allow."""
    catalog: Mapping[str, MessageType] = field(default_factory=lambda: CATALOG)
    patience_s: float = 20.0
    """How long an answer may take."""


class NotOffered(Exception):
    """The server has nothing to judge this by."""
