"""One MCP server, kept running: started again with growing waits when it dies, its tools known anew each time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import structlog

from overnight.client.mcp.target import McpTarget, tool_name
from overnight.client.socket.connector import Backoff
from overnight.client.socket.tools import Answer, Hear, Progress
from overnight.errors import ToolFailure, ToolUnavailable

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import Tool as McpToolMeta

START_S: Final = 60.0
"""A server must have told its tools within this."""
LASTING_S: Final = 30.0
"""One that has lived so long did not fail by being started."""
_FORGOTTEN: Final = "Session terminated"
"""So says the MCP library when a server at a URL has been restarted."""
_MOST_PAGES: Final = 100
log = structlog.get_logger(__name__)


class McpServer:
    """A server and its tools, named `prefix` and their own name. `changed` is called when there are others."""

    def __init__(
        self, target: McpTarget, *, prefix: str = "", changed: Callable[[], object] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:  # fmt: skip
        self.target = target
        self.tools: dict[str, McpTool] = {}
        """Also while it does not run: then they cannot be called."""
        self.trouble = ""
        """Why it does not run; empty while it does."""
        self._prefix = prefix
        self.changed = changed
        self._backoff = backoff or Backoff(first_s=0.5, most_s=30.0)
        self._client: Client | None = None
        self._over = asyncio.Event()
        self._listed = asyncio.Event()
        self._tried = asyncio.Event()
        self._closing = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to start it; returns at once."""
        if self._running is None:
            self._running = asyncio.create_task(self._kept(), name=f"MCP server {self.target.shown}")

    async def tried(self) -> None:
        """Wait until it was started once, or has failed to; then `trouble` says which."""
        await self._tried.wait()

    async def close(self) -> None:
        """End it and everything that it started; idempotent."""
        self._closing.set()
        self._over.set()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def call(self, name: str, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        """Call a tool by the server's own name for it. Raises ToolUnavailable while it does not run, ToolFailure."""
        from mcp import MCPError  # noqa: PLC0415 - loaded by then
        from mcp_types import CONNECTION_CLOSED  # noqa: PLC0415

        from overnight.client.mcp.content import answer_of  # noqa: PLC0415

        client = self._client
        if client is None:
            raise ToolUnavailable(
                f"its MCP server {self.target.shown} does not run: {self.trouble or 'not yet'}"
            )

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            await hear(Progress(percent=_percent(progress, total), status=message and message[:1000]))

        try:
            return answer_of(await client.call_tool(name, dict(arguments), progress_callback=progressed))
        except MCPError as error:
            if error.code == CONNECTION_CLOSED or error.message == _FORGOTTEN:
                self._over.set()
                raise ToolUnavailable(f"its MCP server {self.target.shown} has died") from None
            raise ToolFailure(f"the MCP server refused: {error.message}"[:2000]) from None

    async def _kept(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while not self._closing.is_set():
            began = loop.time()
            try:
                await self._life()
                self.trouble = "it has ended"
            except Exception as error:  # noqa: BLE001 - a service loop: the next start may go well
                self.trouble = _why(error)
            finally:
                self._client = None
                self._tried.set()
            if self._closing.is_set():
                return
            log.warning("mcp.server_ended", server=self.target.shown, why=self.trouble)
            failures = 0 if loop.time() - began >= LASTING_S else failures
            await self._pause(random.uniform(0.5, 1.0) * self._backoff.bound(failures))  # noqa: S311 - no secret
            failures += 1

    async def _life(self) -> None:
        """From its start to its end."""
        from overnight.client.mcp.wire import client_of  # noqa: PLC0415 - loaded with the first server

        self._over.clear()
        if self._closing.is_set():
            return
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(START_S):
                client = await stack.enter_async_context(
                    client_of(self.target, over=self._over.set, relist=self._listed.set)
                )
                await self._list(client)
            self._client, self.trouble = client, ""
            self._tried.set()
            log.info("mcp.server_ready", server=self.target.shown, tools=len(self.tools))
            relisting = asyncio.create_task(self._relist(client), name="list the tools of an MCP server")
            try:
                await self._over.wait()
            finally:
                self._client = None
                relisting.cancel()
                await asyncio.gather(relisting, return_exceptions=True)

    async def _relist(self, client: Client) -> None:
        """Whenever the server says that it has other tools. A listing that fails leaves those that were known."""
        from mcp import MCPError  # noqa: PLC0415 - loaded by then

        while True:
            await self._listed.wait()
            try:
                await self._list(client)
            except (MCPError, ValueError) as error:
                log.warning("mcp.not_listed", server=self.target.shown, why=str(error))

    async def _list(self, client: Client) -> None:
        self._listed.clear()
        found: dict[str, McpTool] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            for meta in page.tools:
                made = McpTool(self, meta, tool_name(self._prefix, meta.name))
                found[str(made.meta["name"])] = made
            cursor = page.next_cursor
            if cursor is None:
                break
        differs = {name: one.meta for name, one in found.items()} != {
            n: o.meta for n, o in self.tools.items()
        }
        self.tools = found
        if differs:
            self.changed()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


class McpTool:
    """One tool of an MCP server; see `client.socket.tools.Tool`."""

    def __init__(self, server: McpServer, tool: McpToolMeta, name: str) -> None:
        from overnight.client.mcp.content import meta_of  # noqa: PLC0415 - loaded by then

        self._server = server
        self._own = tool.name
        self._meta = meta_of(tool, name)

    @property
    def meta(self) -> Mapping[str, Any]:
        """See `Tool`."""
        return self._meta

    async def run(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        """See `Tool`. Cancelled, the server is told."""
        return await self._server.call(self._own, arguments, hear)


def _percent(progress: float, total: float | None) -> float | None:
    """Of what is to be done; None where nobody knows how much that is."""
    if not total or total <= 0:
        return None
    return max(0.0, min(100.0, 100.0 * progress / total))


def _why(error: BaseException) -> str:
    """In words. What several tasks of a server's connection raise is told by the first of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"it did not tell its tools within {START_S:g} s"
    return f"{type(error).__name__}: {error}"[:500] if str(error) else type(error).__name__
