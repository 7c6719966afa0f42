"""Presence: who else follows a session, shown to those who asked for it. Transient; nothing of it is an event.

A server says "look again at these sessions" to all servers, itself included; each then puts together its own
connections and the rows of the others. So a notice that is lost costs freshness alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson
import structlog

from overnight.clock import Clock
from overnight.domain.connection import Connection
from overnight.domain.event import canonical
from overnight.errors import OvernightError
from overnight.ids import SessionId, WorkerId
from overnight.ports.notifier import PRESENCE, Notice, Notifier, Subscription
from overnight.ports.unit_of_work import UnitOfWork
from overnight.server.connected import Connected
from overnight.wire.v1.connections import FRESH_MS

MOST_SHOWN: Final = 50
"""Followers that one frame names; the number of all is in it too."""
LOOK_S: Final = 30.0
"""Look at everything this often: notices may be lost, and a server that was killed sends none."""
_MOST_NAMED: Final = 200

log = structlog.get_logger(__name__)


class Presence:
    """Knows which connections follow which session, and keeps those that want to know up to date."""

    def __init__(self, uow: UnitOfWork, notifier: Notifier, clock: Clock, server: WorkerId) -> None:
        self._uow = uow
        self._notifier = notifier
        self._clock = clock
        self._server = server
        self._followers: dict[SessionId, set[Connected]] = {}
        self._changed: set[SessionId] = set()
        self._subscription: Subscription | None = None
        self._look_at = clock.boot() + LOOK_S

    def joined(self, connected: Connected) -> None:
        """It follows from now on; shown with the next `publish`."""
        session_id = connected.what.session_id
        if session_id is not None:
            self._followers.setdefault(session_id, set()).add(connected)
            self._changed.add(session_id)

    def left(self, connected: Connected) -> bool:
        """It follows no longer; whether it was the last one here to follow its session."""
        session_id = connected.what.session_id
        followers = self._followers.get(session_id) if session_id is not None else None
        if session_id is None or followers is None:
            return False
        followers.discard(connected)
        if not followers:
            del self._followers[session_id]
        self._changed.add(session_id)
        return not followers

    def publish(self) -> None:
        """Tell every server what has changed here since the last time."""
        changed, self._changed = sorted(self._changed), set()
        for start in range(0, len(changed), _MOST_NAMED):
            named = orjson.dumps(changed[start : start + _MOST_NAMED])
            self._notifier.publish([Notice(topic=PRESENCE, delta=named)])

    async def look(self) -> None:
        """Wait for what servers say, and show it to those here who want to know."""
        if self._subscription is None:
            self._subscription = self._notifier.subscribe(PRESENCE)
        notices = await self._subscription.next(LOOK_S)
        named = {session_id for notice in notices for session_id in orjson.loads(notice.delta or b"[]")}
        now = self._clock.boot()
        unnamed = any(notice.delta is None for notice in notices)  # not every notifier carries the names
        all_of_them = not notices or unnamed or now >= self._look_at
        if all_of_them:
            self._look_at = now + LOOK_S
        for session_id in tuple(self._followers):
            if all_of_them or session_id in named:
                await self._show(session_id)

    def close(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            self._subscription.close()

    async def others(self, session_id: SessionId) -> Sequence[Connection]:
        """The followers that other living servers have."""
        found = await self._uow.read(lambda tx: tx.connections.following(session_id))
        since = self._clock.wall_ms() - FRESH_MS
        return [row for row in found if row.server != self._server and row.heartbeat_at >= since]

    async def _show(self, session_id: SessionId) -> None:
        if not any(one.what.presence for one in self._followers.get(session_id, ())):
            return
        try:
            others = await self.others(session_id)
        except OvernightError as error:
            log.warning("presence.unread", code=error.code, error=str(error))
            others = ()
        here = self._followers.get(session_id, set())
        now = self._clock.wall_ms()
        rows = [*(one.row(self._server, now) for one in sorted(here, key=lambda one: one.since)), *others]
        document = _document(session_id, rows)
        for one in tuple(here):
            if one.what.presence:
                one.show(document)


def _document(session_id: SessionId, rows: Iterable[Connection]) -> bytes:
    """Equal sets give equal bytes: nothing in it says when somebody came."""
    people = [
        {"actor": row.actor, "client": row.client, "kind": row.kind, "target": row.target} for row in rows
    ]
    data = {"total": len(people), "connections": people[:MOST_SHOWN]}
    return canonical({"type": "presence", "session_id": session_id, "data": data})
