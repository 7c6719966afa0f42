"""The process of the built-in agent, put together: light at first, the libraries of the loop while it is greeted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from overnight.agent.process import AgentSettings, serve
from overnight.version import VERSION

if TYPE_CHECKING:
    from overnight.agent.connection import Server
    from overnight.agent.history import History
    from overnight.agent.tools.servers import ServersOfSession
    from overnight.agent.workshop import Equipped


async def run_agent(settings: AgentSettings, say: Callable[[str], None]) -> None:
    """Serve the client at standard input until it has gone."""
    workshop = _Workshop(settings)
    workshop.begin()
    try:
        await serve(settings, workshop.equip, version=VERSION, say=say)
    finally:
        await workshop.close()


class _Workshop:
    """Loads once what the turns of all sessions need."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._loading: asyncio.Task[None]
        self._server: Server | None = None
        self._servers: list[ServersOfSession] = []

    def begin(self) -> None:
        """Begin to load; returns at once."""
        self._loading = asyncio.create_task(self._load(), name="load the loop")

    async def _load(self) -> None:
        """In a thread: the client is answered meanwhile."""
        await asyncio.to_thread(import_module, "overnight.agent.connection")
        self._connect()
        await asyncio.to_thread(import_module, "overnight.agent.workshop")

    async def equip(self, history: History, servers: Sequence[Mapping[str, Any]]) -> Equipped:
        """See `acp.agent.Workshop`. Raises what has kept the libraries from being loaded."""
        await asyncio.shield(self._loading)
        from overnight.agent.tools.registry import default_tools  # noqa: PLC0415 - loaded by then
        from overnight.agent.tools.servers import ServersOfSession  # noqa: PLC0415
        from overnight.agent.workshop import Equipped  # noqa: PLC0415

        server = self._connect()
        mine = ServersOfSession(servers, history.cwd)
        self._servers.append(mine)
        return Equipped(
            settings=self._settings,
            history=history,
            models=server,
            tools=default_tools(),
            elsewhere=server.tools,
            servers=mine,
        )

    async def close(self) -> None:
        """End the connection, and the MCP servers of sessions that are still open."""
        await asyncio.gather(self._loading, return_exceptions=True)
        await asyncio.gather(*(servers.close() for servers in self._servers))
        if self._server is not None:
            await self._server.close()

    def _connect(self) -> Server:
        from overnight.agent.connection import Server  # noqa: PLC0415 - see `load`
        from overnight.client.socket.target import Target  # noqa: PLC0415

        if self._server is None:
            self._server = Server(Target(url=self._settings.endpoint, token=self._settings.token))
            self._server.open()
        return self._server
