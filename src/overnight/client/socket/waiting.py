"""Those who wait for a reply, or for room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from overnight.errors import Disconnected, OvernightError
from overnight.wire.socket.envelope import Envelope


class Replies:
    """Requests of this side that have no reply yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, asyncio.Future[Envelope]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def to(self, request: str, scope: str) -> Envelope:
        """Wait for the reply. It must be asked for before the loop has its turn again."""
        reply: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self._waiting[request] = (scope, reply)
        try:
            return await reply
        finally:
            self._waiting.pop(request, None)

    def came(self, envelope: Envelope) -> bool:
        """A message, which may be the reply to something. True: somebody has waited for it."""
        found = self._waiting.pop(envelope.reply_to, None) if envelope.reply_to is not None else None
        if found is None or found[1].done():
            return False
        found[1].set_result(envelope)
        return True

    def prune(self, is_open: Callable[[str], bool]) -> None:
        """After a cut: replies in scopes that are over by now may have been lost with the connection."""
        for scope in {scope for scope, _ in self._waiting.values() if not is_open(scope)}:
            self.fail(Disconnected("the reply was cut off"), scope=scope)

    def fail(self, error: OvernightError, *, scope: str | None = None) -> None:
        """No reply will come any more, in this scope or, without one, at all."""
        for request, (of, reply) in list(self._waiting.items()):
            if scope in (None, of):
                del self._waiting[request]
                if not reply.done():
                    reply.set_exception(error)


class Room:
    """Producers whose scope has no room."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def wait(self, scope: str) -> None:
        """Until it is worth to try again."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(scope, deque()).append(one)
        await one

    def free(self, scope: str) -> None:
        """There is room in the scope, or it is over: all who wait try again."""
        for one in self._waiting.pop(scope, ()):
            if not one.done():
                one.set_result(None)

    def look(self, has_room: Callable[[str], bool]) -> None:
        """Ask for every scope in which somebody waits."""
        for scope in list(self._waiting):
            if has_room(scope):
                self.free(scope)
