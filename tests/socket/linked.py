"""A server of links, and a client that is joined to it in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.socket.exchange import SMALL

from overnight.client.socket.inproc import InProcess, pair
from overnight.client.socket.link import Admission, Ended, Handler, Link
from overnight.errors import (
    StreamTrimmed,
    Unauthorized,
)
from overnight.wire.socket.catalog.control import Hello
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.limits import Limits


class Server:
    """Lets everybody with the token in, and keeps links that were cut."""

    def __init__(self, limits: Limits | None = None, **handlers: Handler) -> None:
        self.limits = limits or Limits()
        self.handlers = {name.replace("_", "."): one for name, one in handlers.items()}
        self.links: dict[str, Link] = {}
        self.resumed = 0

    async def greet(self, link: Link, hello: Hello) -> Admission:
        if hello.token != "t":
            raise Unauthorized
        known = self.links.get(hello.resume.connection) if hello.resume else None
        name = hello.resume.connection if hello.resume and known else f"c{len(self.links)}"
        self.resumed += known is not None
        self.links[name] = known or link
        return Admission(connection=name, resume_key="k", link=known)

    async def serve(self, transport: InProcess) -> Ended:
        async def resume(link: Link, scope: str, cursor: int) -> None:
            if cursor == 13:
                raise StreamTrimmed("gone", extra={"earliest": 20, "latest": 30})
            link.post(scope, "text", {"text": f"after {cursor}"})

        link = Link("server", transport, limits=self.limits, handlers=self.handlers, on_hello=self.greet,
                    resumers={"run": resume}, catalog=SMALL)  # fmt: skip
        return await link.run()


@asynccontextmanager
async def joined(server: Server, **client_handlers: Handler) -> AsyncIterator[tuple[Link, InProcess]]:
    """A client that is greeted; at the end both are closed and nothing of them runs."""
    before = asyncio.all_tasks()
    ours, theirs = pair()
    link = Link("client", ours, hello={"token": "t"}, catalog=SMALL, handlers=client_handlers)
    tasks = [asyncio.create_task(server.serve(theirs)), asyncio.create_task(link.run())]
    await link.ready()
    try:
        yield link, ours
    finally:
        await link.close()
        for one in server.links.values():
            await one.close()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        assert asyncio.all_tasks() - before == set()


async def count(link: Link, envelope: Envelope) -> None:
    """Ack, say numbers, end."""
    await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
    for number in range(2000):
        await link.send(envelope.scope, "text", {"text": str(number)})
    await link.end(envelope.scope, "done", {})


async def hold(link: Link, envelope: Envelope) -> None:
    """Open, and leave it so."""
