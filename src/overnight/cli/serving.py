"""A tool host in the foreground, and single calls: what `overnight tools` does once its options are read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from overnight.cli.connect import found, locate
from overnight.cli.output import emit, say
from overnight.cli.sourcing import tools_of
from overnight.client.hosting import Hosting, Watch
from overnight.client.mcp.server import McpServer
from overnight.client.mcp.target import McpAddress, McpProgram, McpTarget
from overnight.client.socket.connector import Where
from overnight.client.socket.link import Link
from overnight.client.socket.target import Target
from overnight.client.socket.tools import Answer, Progress, Tool, ToolCalls
from overnight.client.socket.transport import SocketTransport
from overnight.config.logging import configure
from overnight.config.sources import read
from overnight.errors import ConfigInvalid, Disconnected, ToolUnavailable, Unreachable

GREETED_S: Final = 20.0


@dataclass(slots=True, eq=False)
class Offer:
    """What is to be offered: `tools` is the table as it is now, also of MCP servers as they come and change."""

    fixed: Mapping[str, Tool]
    servers: Sequence[McpServer]
    tools: dict[str, Tool] = field(default_factory=dict)
    clashes: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, sources: Sequence[str], programs: Sequence[str], urls: Sequence[str], prefix: str) -> Self:
        """Out of what a command line names. Raises InvalidInput."""
        fixed = tools_of(sources, prefix)
        targets: list[McpTarget] = [
            *(McpProgram.of(line) for line in programs), *(McpAddress(url=url) for url in urls),
        ]  # fmt: skip
        return cls(fixed, [McpServer(target, prefix=prefix) for target in targets], dict(fixed))

    def refresh(self) -> None:
        """Gather the table anew. Of two with one name the first is offered, and that is said once."""
        found = dict(self.fixed)
        for server in self.servers:
            for name, tool in server.tools.items():
                if name not in found:
                    found[name] = tool
                elif found[name] is not tool and name not in self.clashes:
                    self.clashes.add(name)
                    say(
                        f"overnight: {server.target.shown} has a tool {name}, and so has another source of yours"
                    )
        self.tools.clear()
        self.tools.update(found)


class _Words(Watch):
    """Says to a person, or in JSON to a program, what becomes of the offer."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._refused: set[str] = set()
        self._ending = False

    def ending(self) -> None:
        """From now on an end of the connection is none of interest."""
        self._ending = True

    def offered(self, names: tuple[str, ...]) -> None:
        """See `Watch`."""
        if self._as_json:
            emit({"event": "offered", "tools": list(names)})
        elif names:
            say(f"on offer: {', '.join(names)}")
        else:
            say("connected; nothing is on offer yet")

    def refused(self, name: str, why: str) -> None:
        """See `Watch`."""
        if name in self._refused:
            return
        self._refused.add(name)
        if self._as_json:
            emit({"event": "refused", "tool": name, "why": why})
        say(f"overnight: {name} is not taken: {why}")

    def lost(self) -> None:
        """See `Watch`."""
        if self._ending:
            return
        if self._as_json:
            emit({"event": "lost"})
        say("overnight: the connection is lost; trying again")


async def serve(offer: Offer, url: str | None, *, as_json: bool) -> None:
    """Offer it until a signal comes. Raises Unreachable, Unauthorized, Nacked."""
    configure("warning", "console")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    where = await _where(url)
    words = _Words(as_json=as_json)
    hosting = Hosting(where, offer.tools, watch=words, tolerant=bool(offer.servers))

    def changed() -> None:
        offer.refresh()
        hosting.changed()

    for server in offer.servers:
        server.changed = changed
        server.open()
    for server in offer.servers:
        first, _ = await _first(server.tried(), stop.wait())
        if first and server.trouble:
            say(
                f"overnight: the MCP server {server.target.shown} does not run: {server.trouble}; trying again"
            )
    running = asyncio.create_task(hosting.run(), name="host tools")
    try:
        await _first(asyncio.shield(running), stop.wait())
        words.ending()
        await hosting.close()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, *(server.close() for server in offer.servers), return_exceptions=True)


async def _first(*works: Any) -> tuple[bool, ...]:
    """Wait for the first of these, and say which are done. Raises nothing of theirs."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tuple(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def called(url: str | None, name: str, arguments: Mapping[str, Any], timeout_s: float) -> Answer:
    """What the tool answers. Raises ToolFailure, Unreachable."""

    async def hear(progress: Progress) -> None:
        percent = "" if progress.percent is None else f"{progress.percent:.0f}%"
        said = " ".join(one for one in (percent, progress.status, progress.partial) if one)
        if said:
            say(said)

    async with calling(url) as calls:
        try:
            return await calls.execute(name, arguments, timeout_s=timeout_s, hear=hear)
        except Disconnected as error:
            raise ToolUnavailable(f"the connection was lost: {error.detail}") from None


@asynccontextmanager
async def linked(url: str | None) -> AsyncIterator[Link]:
    """One connection to the server. Raises Unreachable, Unauthorized."""
    where = await _where(url, probe=False)
    async with AsyncExitStack() as stack:
        transport = SocketTransport()
        await transport.connect(where())
        link = Link("client", transport)
        running = asyncio.create_task(link.run(), name="connection of a command")
        stack.push_async_callback(_ended, link, running)
        try:
            async with asyncio.timeout(GREETED_S):
                await _first(link.ready(), asyncio.shield(running))
        except TimeoutError:
            raise Unreachable("the server does not greet") from None
        if running.done():
            raise Unreachable(f"the server has ended the connection: {running.result().reason}")
        yield link


@asynccontextmanager
async def calling(url: str | None) -> AsyncIterator[ToolCalls]:
    """The same, for calls of tools."""
    async with linked(url) as link:
        yield ToolCalls(link)


async def _ended(link: Link, running: asyncio.Task[Any]) -> None:
    await link.close()
    await asyncio.gather(running, return_exceptions=True)


async def _where(url: str | None, *, probe: bool = True) -> Where:
    """Where the server is, each time anew where it is the one of this machine. Raises Unreachable, ConfigInvalid."""
    if url is not None and url.startswith(("ws:", "wss:", "unix:")):
        token = os.environ.get("OVERNIGHT_TOKEN")
        if not token and not url.startswith("unix:"):
            raise ConfigInvalid(
                "a server is named but no token", mend="set OVERNIGHT_TOKEN to one of its tokens"
            )
        target = Target(url=url, token=token or None)
        where: Where = lambda: target  # noqa: E731
    else:
        sources = read(overrides={"url": url} if url else None)
        await found(sources, start=False)

        def where() -> Target:
            endpoint = locate(sources)
            if endpoint is None:
                raise Unreachable("no server runs here now")
            return Target.of(endpoint)

    if probe:
        with contextlib.suppress(OSError):
            transport = SocketTransport()
            try:
                await transport.connect(where())
            finally:
                await transport.close()
    return where
