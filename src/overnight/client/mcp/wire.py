"""The connection to an MCP server, by the MCP library. Importing this loads that library."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Self

import httpx2
from mcp import Client
from mcp.client._transport import ReadStream, TransportStreams
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import Implementation, ToolListChangedNotification

from overnight.client.mcp.target import McpProgram, McpTarget
from overnight.version import VERSION

CONNECT_S: Final = 30.0
SILENT_S: Final = 300.0
"""An answer may be without a word for so long; also while a tool is at work."""
_Item = SessionMessage | Exception


def client_of(target: McpTarget, *, over: Callable[[], None], relist: Callable[[], None]) -> Client:
    """A client of that server. `over` is called when its connection ends, `relist` when its tools are others."""

    async def heard(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            relist()

    return Client(
        _Watched(_transport(target), over),
        client_info=Implementation(name="overnight", version=VERSION),
        message_handler=heard,
        cache=None,
    )


@asynccontextmanager
async def _transport(target: McpTarget) -> AsyncGenerator[TransportStreams]:
    if isinstance(target, McpProgram):
        program = StdioServerParameters(
            command=target.command,
            args=list(target.arguments),
            env=dict(target.environment),
            cwd=target.folder,
        )
        async with stdio_client(program) as streams:
            yield streams
        return
    timeout = httpx2.Timeout(CONNECT_S, read=SILENT_S)
    async with (
        httpx2.AsyncClient(headers=dict(target.headers), timeout=timeout, trust_env=False) as http,
        streamable_http_client(target.url, http_client=http) as streams,
    ):
        yield streams


class _Watched:
    """A transport that tells when nothing more will come from it."""

    def __init__(
        self, inner: AbstractAsyncContextManager[TransportStreams], over: Callable[[], None]
    ) -> None:
        self._inner = inner
        self._over = over

    async def __aenter__(self) -> TransportStreams:
        read, write = await self._inner.__aenter__()
        return _WatchedReading(read, self._over), write

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class _WatchedReading:
    """What comes from the server. The reader leaves it when it has ended."""

    def __init__(self, inner: ReadStream[_Item], over: Callable[[], None]) -> None:
        self._inner = inner
        self._over = over

    @property
    def last_context(self) -> object:
        """Of the latest message, where the transport knows it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> _Item:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        return await self._inner.__anext__()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._over()
        return await self._inner.__aexit__(kind, error, trace)
