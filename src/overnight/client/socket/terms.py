"""The words between a link and those who use it: transports, handlers, how things end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from overnight.errors import Disconnected, OvernightError
from overnight.wire.socket.catalog.control import Hello
from overnight.wire.socket.envelope import Envelope

if TYPE_CHECKING:
    from overnight.client.socket.link import Link

LinkClosed = Disconnected
"""What is raised when a link is over."""


class Transport(Protocol):
    """Whole messages, in order. A message is JSON text in UTF-8."""

    async def send(self, message: bytes) -> None:
        """Send one; returns when there is room for another. OvernightError or OSError when it is over."""
        ...

    async def receive(self) -> bytes | str | None:
        """The next one; None once it is over."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """End it; idempotent."""
        ...


class Nacked(OvernightError):
    """The other side refused a request; `code` is that of its nack."""

    def __init__(
        self, code: str, detail: str, *, mend: str = "", extra: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(detail, mend=mend, extra=extra)
        self.code = code  # type: ignore[misc]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a transport ended. `survives`: scopes wait for another one. `told`: the other side said goodbye."""

    code: int
    reason: str = ""
    survives: bool = False
    told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a server answers a hello with. `link`: the one that was cut, and goes on with the new transport."""

    connection: str
    resume_key: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    link: Link | None = None


Handler = Callable[["Link", Envelope], Awaitable[None]]
Greeter = Callable[["Link", Hello], Awaitable[Admission]]
Resumer = Callable[["Link", str, int], Awaitable[None]]
"""Called with scope and cursor when a peer resumes a scope with a log, which is open by then: begin to send what
follows the cursor and return. StreamTrimmed, with `earliest` and `latest` in its `extra`, tells the peer of a gap."""


def now_ms() -> int:
    """Unix milliseconds by a clock that never jumps."""
    return _START_MS + time.monotonic_ns() // 1_000_000


_START_MS: Final = (time.time_ns() - time.monotonic_ns()) // 1_000_000
