"""Runs over sockets: any number of their logs on one connection, live, each resumed at its cursor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overnight.client.socket.link import Handler, Link
from overnight.client.socket.terms import Resumer
from overnight.domain.token import TokenKind
from overnight.engine.sources import Followed
from overnight.errors import Forbidden, InvalidCursor, StreamTrimmed
from overnight.ids import RunId, check_id
from overnight.ports.tables import StreamMark
from overnight.server.auth import Caller
from overnight.server.context import Parts
from overnight.server.routes.stream import standing
from overnight.server.socket.handlers import Socket
from overnight.server.socket.logs import Subscriptions, Words, stream_id
from overnight.wire.socket.envelope import Envelope

WORDS: Final = Words(events="run.events", fragment="run.fragment", end="run.end")


class RunStreams:
    """The run messages of one server."""

    kinds: frozenset[TokenKind] = frozenset({"user", "agent"})

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._followed: dict[Socket, Subscriptions] = {}

    def handlers(self, socket: Socket) -> Mapping[str, Handler]:
        """See `Spoken`."""

        async def subscribe(link: Link, envelope: Envelope) -> None:
            body = envelope.body
            run_id = stream_id(envelope.scope, "run")
            if body.run != run_id:
                raise InvalidCursor(f"the scope is {envelope.scope}, and the run {body.run[:64]}")
            caller, followed, mark = await self._found(socket, run_id)
            check_cursor(body.after, mark)
            reader = self._parts.services.follower.events(followed, body.after)
            await link.send(envelope.scope, "ack", {"cursor": mark.last}, reply_to=envelope.id)
            self._of(socket).begin(envelope.scope, reader, caller, WORDS, fragments=body.fragments)

        async def unsubscribe(link: Link, envelope: Envelope) -> None:
            self._of(socket).end(envelope.scope)
            await link.end(envelope.scope, "run.end", {})

        return {"run.subscribe": subscribe, "run.unsubscribe": unsubscribe}

    def resumers(self, socket: Socket) -> Mapping[str, Resumer]:
        """See `Spoken`."""

        async def resume(link: Link, scope: str, cursor: int) -> None:  # noqa: ARG001 - it is the socket's own
            caller, followed, mark = await self._found(socket, stream_id(scope, "run"))
            check_cursor(cursor, mark)
            reader = self._parts.services.follower.events(followed, cursor)
            self._of(socket).begin(scope, reader, caller, WORDS, fragments=False)

        return {"run": resume}

    async def left(self, socket: Socket) -> None:
        """See `Spoken`."""
        found = self._followed.pop(socket, None)
        if found is not None:
            await found.close()

    def _of(self, socket: Socket) -> Subscriptions:
        return self._followed.setdefault(socket, Subscriptions(socket, self._parts.authenticator))

    async def _found(self, socket: Socket, run_id: str) -> tuple[Caller, Followed, StreamMark]:
        check_id("run", run_id)
        if socket.caller.run_id not in {None, run_id}:
            raise Forbidden("an agent's own process may follow its own run, and no other")
        caller = await admitted(self._parts, socket.caller, f"/api/v1/runs/{run_id}/stream")
        run, mark = await self._parts.services.uow.read(
            lambda tx: standing(tx, RunId(run_id), caller.principal.owner)
        )
        return caller, run, mark


async def admitted(parts: Parts, caller: Caller, path: str, method: str = "GET") -> Caller:
    """The caller as it acts on what that path names: what may be done there may be done here."""
    if caller.claim is None:
        caller.check(method, path)
    return await parts.access.admitted(caller, method, path, b"")


def check_cursor(after: int, mark: StreamMark) -> None:
    """Return if a log can be read on from there. Raises InvalidCursor, StreamTrimmed."""
    if after > mark.last:
        raise InvalidCursor(f"there are {mark.last} events; {after} is not among them")
    if after < mark.first - 1:
        raise StreamTrimmed(
            f"the events after {after} have been trimmed; {mark.first} is the earliest that is left",
            extra={"earliest": mark.first, "latest": mark.last},
        )
