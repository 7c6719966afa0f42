"""Those who wait for a reply, or for room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from overnight.errors import OvernightError
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

    def came(self, envelope: Envelope) -> None:
        """A message, which may be the reply to something."""
        if envelope.reply_to is not None:
            found = self._waiting.pop(envelope.reply_to, None)
            if found is not None and not found[1].done():
                found[1].set_result(envelope)

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
