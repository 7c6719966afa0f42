"""A small server of the protocol: whoever opens a scope is counted to, until it is enough or somebody ends it."""

from __future__ import annotations

import asyncio
import secrets

from tests.socket.exchange import SMALL

from overnight.client.socket.link import Admission, Ended, Link
from overnight.client.socket.terms import Transport
from overnight.errors import NotFound, Unauthorized
from overnight.wire.socket.catalog.control import Hello
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.limits import Limits


async def count(link: Link, envelope: Envelope) -> None:
    await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
    for number in range(20):
        await link.send(envelope.scope, "text", {"text": str(number)})
    await link.end(envelope.scope, "done", {})


async def abort(link: Link, envelope: Envelope) -> None:
    await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
    await link.end(envelope.scope, "failed", {"code": "aborted", "message": "", "retryable": False})


async def nothing(link: Link, envelope: Envelope) -> None:
    """Acks."""


async def no_log(link: Link, scope: str, cursor: int) -> None:
    raise NotFound("no such log")


class Counting:
    """It holds what was cut until it is closed."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self._links: dict[str, tuple[str, Link]] = {}
        self._tasks: list[asyncio.Task[Ended]] = []

    def serve(self, transport: Transport) -> None:
        """Serve one more connection."""
        self._tasks.append(asyncio.create_task(self.run(transport)))

    async def run(self, transport: Transport) -> Ended:
        """The same, in the caller's task."""
        handlers = {"start": count, "abort": abort, "ask": nothing}
        link = Link("server", transport, limits=self._limits, handlers=handlers, on_hello=self._greet,
                    resumers={"run": no_log}, catalog=SMALL)  # fmt: skip
        return await link.run()

    async def _greet(self, link: Link, hello: Hello) -> Admission:
        if hello.token != "t":
            raise Unauthorized
        if hello.resume is not None:
            key, known = self._links.get(hello.resume.connection, ("", None))
            if known is not None and secrets.compare_digest(key, hello.resume.key):
                return Admission(connection=hello.resume.connection, resume_key=key, link=known)
        name, key = f"c{len(self._links)}", secrets.token_hex(8)
        self._links[name] = (key, link)
        return Admission(connection=name, resume_key=key)

    async def close(self) -> None:
        """End every link."""
        for _, link in self._links.values():
            await link.close()
        await asyncio.gather(*self._tasks)
