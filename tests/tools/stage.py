"""A hub with clients on it, in one process: the real links over in-process transports."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from overnight.client.socket.inproc import pair
from overnight.client.socket.link import Admission, Link
from overnight.client.socket.tools import Answer, Hear, Tool, ToolCalls, ToolHost
from overnight.domain.agent_token import Claim
from overnight.domain.request import Principal
from overnight.ids import ConnectionId, RunId
from overnight.ports.unit_of_work import UnitOfWork
from overnight.server.auth import Caller
from overnight.server.socket.handlers import Socket
from overnight.server.socket.tools.hub import ToolHub
from overnight.server.socket.tools.leave import Leaves
from overnight.wire.socket.catalog.control import Hello


def caller(user: str = "usr_local", run: RunId | None = None) -> Caller:
    kind = "user" if run is None else "agent"
    claim = None if run is None else Claim(run_id=run, turn=1, attempt=1)
    principal = Principal(owner=user, name=user, kind=kind)  # type: ignore[arg-type]
    return Caller(principal=principal, digest="d", user=user, claim=claim)


@dataclass
class Party:
    """One client of the hub."""

    link: Link
    socket: Socket
    transport: Any
    served: Any
    tasks: list[asyncio.Task[Any]]

    @property
    def calls(self) -> ToolCalls:
        return ToolCalls(self.link)

    def cut(self) -> None:
        """The network is gone, without a word."""
        self.transport.cut()

    async def end(self, hub: ToolHub) -> None:
        """The client is gone for good, and the server has noticed."""
        await self.link.close()
        await asyncio.gather(*self.tasks)
        await self.socket.link.close()
        await hub.left(self.socket)


@dataclass
class Hub:
    """The hub, and how to get to it."""

    hub: ToolHub
    stack: AsyncExitStack
    numbers: Any = field(default_factory=itertools.count)

    async def join(self, who: Caller, host: ToolHost | None = None) -> Party:
        near, far = pair()
        id = ConnectionId(f"con_{next(self.numbers)}")
        server = Link("server", far, on_hello=_greeting(id))
        socket = Socket(id=id, key="k", caller=who, link=server)
        server.handle(self.hub.handlers(socket), {})
        link = Link("client", near, handlers={} if host is None else host.handlers())
        tasks = [asyncio.create_task(server.run()), asyncio.create_task(link.run())]
        await link.ready()
        if host is not None:
            await host.offer(link)
        party = Party(link, socket, near, far, tasks)
        self.stack.push_async_callback(_close, party)
        return party


def _greeting(id: str) -> Any:
    async def greet(_: Link, __: Hello) -> Admission:
        return Admission(connection=id, resume_key="k")

    return greet


async def _close(party: Party) -> None:
    await party.link.close()
    await party.socket.link.close()
    await asyncio.gather(*party.tasks)


@asynccontextmanager
async def hub(uow: UnitOfWork | None = None, *, most: int = 100, **leaves: Any) -> AsyncIterator[Hub]:
    async with AsyncExitStack() as stack:
        yield Hub(ToolHub(Leaves(uow, **leaves), most=most), stack)  # type: ignore[arg-type]


@dataclass
class Saying:
    """A tool that does what the test wants."""

    name: str = "say"
    do: Any = None
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    destructive: bool = False
    permissions: tuple[str, ...] = ()
    called: list[Any] = field(default_factory=list)

    @property
    def meta(self) -> Mapping[str, Any]:
        return {
            "name": self.name, "description": "Says.", "parameters": self.parameters,
            "destructive": self.destructive, "permissions": list(self.permissions),
        }  # fmt: skip

    async def run(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        self.called.append(arguments)
        if self.do is not None:
            found: Answer = await self.do(arguments, hear)
            return found
        return words(f"{self.name} says {dict(arguments)}")


def words(text: str) -> Answer:
    return Answer(content=[{"type": "text", "text": text}])


def host(*tools: Tool) -> ToolHost:
    return ToolHost({str(tool.meta["name"]): tool for tool in tools})
