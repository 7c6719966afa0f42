"""The streams that are open now: keepalives, limits, and who is attached."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from overnight.clock import Clock, rfc3339
from overnight.engine.follow import Reader
from overnight.errors import OvernightError, TooManyRequests
from overnight.server.auth import Authenticator, Caller
from overnight.server.metrics import Meters
from overnight.server.services import ServerSettings

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class OpenStream:
    """One client that is attached to a stream."""

    reader: Reader[Any]
    caller: Caller
    target: str
    peer: str
    since: int
    pending_bytes: int
    keepalive_due: bool = False
    left: bool = False
    """The client is gone: there is nobody to say goodbye to."""
    delivered: int = 0

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
        """One keepalive interval has passed."""
        self.keepalive_due = True
        self.reader.nudge()

    def leave(self) -> None:
        """The client left."""
        self.left = True
        self.reader.close()


class Streams:
    """Registry of open streams. `run` is its service loop; the server keeps it going while it is up."""

    def __init__(
        self, *, settings: ServerSettings, clock: Clock, authenticator: Authenticator, meters: Meters
    ) -> None:
        self.settings = settings
        self.meters = meters
        self._clock = clock
        self._authenticator = authenticator
        self._open: set[OpenStream] = set()
        authenticator.on_revoked(self._revoked)

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self) -> None:
        """Raise TooManyRequests when no further stream may be opened."""
        if len(self._open) >= self.settings.max_streams:
            raise TooManyRequests(
                f"{len(self._open)} streams are open, which is the limit", extra={"retry_after_s": 5}
            )

    def opened(self, reader: Reader[Any], *, caller: Caller, target: str, peer: str) -> OpenStream:
        """A client is attached; give it back to `closed`."""
        stream = OpenStream(
            reader=reader, caller=caller, target=target, peer=peer, since=self._clock.wall_ms(),
            pending_bytes=self.settings.pending_bytes,
        )  # fmt: skip
        self._open.add(stream)
        self.meters.stream_opened()
        return stream

    def closed(self, stream: OpenStream) -> None:
        """The client is no longer attached."""
        self._open.discard(stream)

    def resources(self, owner: str | None) -> Sequence[dict[str, object]]:
        """Who is attached, oldest first."""
        streams = sorted(self._open, key=lambda stream: stream.since)
        return [_resource(stream) for stream in streams if owner in (None, stream.caller.principal.owner)]

    async def run(self) -> None:
        """Every keepalive interval: say something on quiet streams, and end those whose token no longer counts."""
        while True:
            await self._clock.sleep(self.settings.keepalive_s)
            for stream in tuple(self._open):
                stream.tick()
            await self._end_refused(tuple(self._open))

    async def _end_refused(self, streams: Iterable[OpenStream]) -> None:
        for stream in streams:
            try:
                if not await self._authenticator.still(stream.caller):
                    stream.reader.close()
            except OvernightError:
                log.warning("stream.token_unchecked", target=stream.target)

    def _revoked(self, token_pk: int) -> None:
        for stream in tuple(self._open):
            if stream.caller.principal.token_pk == token_pk:
                stream.reader.close()


def _resource(stream: OpenStream) -> dict[str, object]:
    return {
        "kind": "sse",
        "target": stream.target,
        "principal": stream.caller.principal.name,
        "peer": stream.peer,
        "since": rfc3339(stream.since),
        "delivered": stream.delivered,
    }
