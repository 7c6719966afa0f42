"""Everybody who is connected to this server: limits, the same client coming again, keepalives, revoked tokens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.errors import OvernightError, TooManyRequests
from overnight.ids import SessionId
from overnight.server.auth import Authenticator
from overnight.server.connected import Attachment, Connected
from overnight.server.connection_rows import ConnectionRows
from overnight.server.metrics import Meters
from overnight.server.presence import Presence
from overnight.server.services import ServerSettings

RETRY_AFTER_S: Final = 5
BEAT_S: Final = 30.0
"""All of a server's connections are said to live this often, in one write."""
SETTLE_S: Final = 0.2
"""Changes are written, and shown to others, together: those of this long."""

log = structlog.get_logger(__name__)


class Connections:
    """The registry. All its methods but `run` and `close` are at once; what they bring about is written later."""

    def __init__(
        self, *, settings: ServerSettings, clock: Clock, authenticator: Authenticator, meters: Meters,
        rows: ConnectionRows, presence: Presence,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.meters = meters
        self._clock = clock
        self._authenticator = authenticator
        self._rows = rows
        self._presence = presence
        self._open: dict[Connected, None] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seats: dict[tuple[str, str, str, str | None], Connected] = {}
        self._left: set[SessionId] = set()
        """Sessions that nobody here follows any more since the last write."""
        self._changed = asyncio.Event()
        authenticator.on_revoked(self._revoked)
        authenticator.on_unshared(self._unshared)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connected]:
        """Oldest first."""
        return iter(tuple(self._open))

    def now(self) -> int:
        """Wall milliseconds."""
        return self._clock.wall_ms()

    def check(self, what: Attachment) -> None:
        """Raise TooManyRequests when it could not be added now.

        A client that comes again takes its own earlier place, so it is let in however full it is.
        """
        if what.seat in self._seats:
            return
        settings = self.settings
        if len(self._open) >= settings.max_connections:
            self._refuse(
                f"{len(self._open)} connections are open, which is the server's limit", "MAX_CONNECTIONS"
            )
        if self._counts[what.purse] >= settings.max_connections_per_user:
            self._refuse(
                f"{settings.max_connections_per_user} connections are open, which is the limit for one user",
                "MAX_CONNECTIONS_PER_USER",
            )

    def add(self, connected: Connected) -> None:
        """Count it, in place of the earlier one of the same client. Raises TooManyRequests as `check` does."""
        what = connected.what
        self.check(what)
        if what.seat is not None:
            earlier = self._seats.get(what.seat)
            if earlier is not None:
                self.discard(earlier)
                earlier.end(replaced=True)
                self.meters.connection_replaced()
            self._seats[what.seat] = connected
        self._open[connected] = None
        self._counts[what.purse] += 1
        self._rows.added(connected)
        self._presence.joined(connected)
        self._changed.set()

    def discard(self, connected: Connected) -> None:
        """It is no longer there; idempotent."""
        if connected not in self._open:
            return
        del self._open[connected]
        what = connected.what
        self._counts[what.purse] -= 1
        if self._counts[what.purse] <= 0:
            del self._counts[what.purse]
        if what.seat is not None and self._seats.get(what.seat) is connected:
            del self._seats[what.seat]
        self._rows.removed(connected)
        if self._presence.left(connected) and what.session_id is not None:
            self._left.add(what.session_id)
        self._changed.set()

    async def run(self) -> None:
        """Everything that is done beside the requests, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._tick, self._settle, self._beat, self._presence.look):
                tasks.create_task(self._keep(work), name=f"connections {work.__name__}")

    async def close(self) -> None:
        """The server ends: leave no row behind."""
        self._presence.close()
        await self._rows.forget()

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again, whatever goes wrong."""
        while True:
            try:
                await work()
            except Exception:  # one of them that goes wrong must not take the others along
                log.exception("connections.broken", work=work.__name__)
                await self._clock.sleep(SETTLE_S)

    async def _settle(self) -> None:
        """Write what has changed, then show it: whoever is told to look finds it written."""
        await self._changed.wait()
        await self._clock.sleep(SETTLE_S)
        self._changed.clear()
        left, self._left = self._left, set()
        await self._rows.flush(self)
        await self._rows.touch(left)
        self._presence.publish()

    async def _beat(self) -> None:
        await self._clock.sleep(BEAT_S)
        if not await self._rows.beat():
            self._changed.set()

    async def _tick(self) -> None:
        """Every keepalive interval: say something where it is quiet, and end those whose token no longer counts."""
        await self._clock.sleep(self.settings.keepalive_s)
        for connected in self:
            connected.tick()
        for connected in self:
            await self._end_if_refused(connected)

    async def _end_if_refused(self, connected: Connected) -> None:
        try:
            if not await self._authenticator.still(connected.what.caller):
                connected.end()
        except OvernightError:
            log.warning("connection.token_unchecked", connection=connected.id)

    def _revoked(self, token_pk: int) -> None:
        for connected in self:
            if connected.what.caller.principal.token_pk == token_pk:
                connected.end()

    def _unshared(self, session_pk: int, share_pk: int | None) -> None:
        for connected in self:
            share = connected.what.caller.share
            if share is not None and share.session_pk == session_pk and share_pk in (None, share.pk):
                connected.end()

    def end_session(self, session_id: str) -> None:
        """The session was deleted: whoever follows it, or one of its runs, has nothing to follow."""
        for connected in self:
            if connected.what.session_id == session_id:
                connected.end()

    def _refuse(self, detail: str, variable: str) -> None:
        self.meters.connection_refused()
        raise TooManyRequests(
            detail,
            mend=f"close some, let each client name itself (?client=) so that it replaces its own, or raise "
            f"OVERNIGHT_{variable}",
            extra={"retry_after_s": RETRY_AFTER_S},
        )
