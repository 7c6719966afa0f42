"""The agent's one connection to its server: models and tools of elsewhere come through it.

It is made while the client is greeted, and kept for as long as the process lives; after a cut it is made again, and a
model's answer that was under way goes on, or is asked for again by the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from overnight.client.socket.connector import Backoff, Connector
from overnight.client.socket.link import Link
from overnight.client.socket.streams import RemoteModels
from overnight.client.socket.target import Target
from overnight.client.socket.tools import ToolCalls
from overnight.errors import Disconnected, ModelError, NoReply, OvernightError
from overnight.ports.model import ModelEvent, ModelFilter, ModelInfo, ModelRequest

GREETED_S: Final = 30.0
"""A server that is being started again gets so long."""
_LOST: Final = (Disconnected, NoReply)


class Server:
    """The server, as the agent sees it. `open` once, in the event loop in which it is used."""

    def __init__(self, target: Target) -> None:
        self._link = Link("client", hello={"capabilities": {"agent": True}})
        self._connector = Connector(self._link, target, backoff=Backoff(first_s=0.2, most_s=5.0))
        self._running: asyncio.Task[None] | None = None
        self._models = RemoteModels(self._link)
        self.tools = ToolCalls(self._link)

    def open(self) -> None:
        """Begin to connect; returns at once."""
        if self._running is None:
            self._running = asyncio.create_task(self._connector.run(), name="connection to the server")

    async def close(self) -> None:
        """End the connection; idempotent."""
        await self._connector.close()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def ready(self) -> None:
        """Wait until it is connected. Raises ModelError when it does not come to that."""
        if self._running is None:
            raise ModelError("the connection was never opened", retryable=False)
        greeted = asyncio.ensure_future(self._link.ready())
        try:
            await asyncio.wait(
                {greeted, self._running}, timeout=GREETED_S, return_when=asyncio.FIRST_COMPLETED
            )
            if self._running.done():
                self._refused(self._running)
            if not greeted.done():
                raise ModelError("the server cannot be reached", mend="see whether it runs: overnight doctor")
            await greeted
        except Disconnected as error:
            raise ModelError(error.detail, retryable=False) from None
        finally:
            greeted.cancel()
            await asyncio.gather(greeted, return_exceptions=True)

    # The model port.

    async def list(self, filter: ModelFilter) -> tuple[ModelInfo, ...]:
        """See `ports.model.Models`."""
        await self.ready()
        return await self._models.list(filter)

    async def resolve(self, name: str) -> ModelInfo:
        """See `ports.model.Models`."""
        await self.ready()
        return await self._models.resolve(name)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        """See `ports.model.Models`. A connection that is lost for good is a failure that trying again may mend."""
        await self.ready()
        try:
            async with self._models.stream(request) as events:
                yield events
        except _LOST as error:
            raise ModelError(
                f"the connection to the server was lost: {error.detail}", retryable=True
            ) from error

    def _refused(self, running: asyncio.Task[None]) -> None:
        error = None if running.cancelled() else running.exception()
        if isinstance(error, OvernightError):
            raise ModelError(
                f"the server does not let the agent in: {error.detail}", mend=error.mend, retryable=False
            )
        raise ModelError("the connection to the server has ended", retryable=False)
