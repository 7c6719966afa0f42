"""Tools of the MCP servers that a session was opened with. They run beneath the agent's process, and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import structlog

from overnight.agent.tools.elsewhere import asked_of, heard_by, outcome_of
from overnight.agent.tools.tool import ForModel, Preview, Tool, ToolContext, ToolOutcome, ToolSpec
from overnight.client.mcp.server import McpServer
from overnight.client.mcp.target import of_session, prefix_of
from overnight.client.socket.tools import Tool as HostTool
from overnight.errors import InvalidInput, ToolFailure, ToolUnavailable

BEGUN_S: Final = 30.0
"""A turn waits so long for servers that are being started, and begins without those that are not there by then."""
log = structlog.get_logger(__name__)


class ServersOfSession:
    """The servers. None is started before the first turn; one that dies is started again."""

    def __init__(self, servers: Sequence[Mapping[str, Any]], folder: str) -> None:
        self._servers: list[McpServer] = []
        for server in servers:
            try:
                targets = of_session([server], folder)
            except InvalidInput as error:
                log.warning("mcp.server_refused", why=error.detail)
                continue
            self._servers += [McpServer(target, prefix=prefix_of(name)) for name, target in targets.items()]

    async def tools(self, besides: Collection[str]) -> dict[str, Tool]:
        """Those that are there now, by name, without names that are taken."""
        for server in self._servers:
            server.open()
        waiting = [asyncio.ensure_future(server.tried()) for server in self._servers]
        if waiting:
            await asyncio.wait(waiting, timeout=BEGUN_S)
        for one in waiting:
            one.cancel()
        found: dict[str, Tool] = {}
        for server in self._servers:
            for name, tool in server.tools.items():
                if name not in besides:
                    found.setdefault(name, ToolOfServer(tool))
        return found

    async def close(self) -> None:
        """End them all; idempotent."""
        await asyncio.gather(*(server.close() for server in self._servers))


class ToolOfServer:
    """One of their tools; see `Tool`."""

    def __init__(self, tool: HostTool) -> None:
        self._tool = tool
        destructive = bool(tool.meta.get("destructive"))
        self._spec = ToolSpec(
            name=str(tool.meta["name"]),
            description=str(tool.meta.get("description", "")),
            parameters=dict(tool.meta["parameters"]),
            parallel_safe=not destructive,
            is_destructive=destructive,
            required_permissions=asked_of(asks=destructive),
        )

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return self._spec

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:  # noqa: ARG002
        """See `Tool`: what a server does cannot be told beforehand."""
        return Preview(title=self._spec.name)

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        try:
            return outcome_of(await self._tool.run(arguments, heard_by(context)))
        except ToolUnavailable as error:
            raise ForModel(f"tool_unavailable: {error.detail}", code="tool_unavailable") from None
        except ToolFailure as error:
            raise ForModel(f"{error.code}: {error.detail}") from None
        except (ValueError, RuntimeError) as error:  # a server that does not keep to its own schemas
            raise ForModel(f"tool_execution_error: {type(error).__name__}: {error}"[:2000]) from None
