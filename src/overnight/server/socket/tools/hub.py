"""Executions on their way: from a caller's scope to a scope of the tool's host and back, with one terminal each.

The server holds the clock: whatever the host does, an execution ends in time. A host that leaves ends those that it
had with `tool_unavailable`; a caller that leaves has its own stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from overnight.client.socket.link import Handler, Link
from overnight.domain.token import TokenKind
from overnight.errors import (
    Forbidden,
    InvalidInput,
    NotFound,
    OvernightError,
    RateLimited,
    ToolFailure,
    ToolTimeout,
    ToolUnavailable,
)
from overnight.server.socket.handlers import Socket
from overnight.server.socket.tools.leave import Leaves
from overnight.server.socket.tools.registry import Offered, Registry, arguments_of
from overnight.wire.socket.catalog.tools import ToolExecute, ToolStatus
from overnight.wire.socket.envelope import Envelope

EXECUTIONS: Final = 100
"""That one connection may have under way."""
REMEMBERED: Final = 256
"""Executions of one connection whose state can be asked for after their end."""
USUAL_S: Final = 120.0
"""An execution that names no time gets this long."""
LONGEST_S: Final = 3600.0
CANCEL_S: Final = 5.0
"""A host gets so long to say what became of an execution that was cancelled."""
_TERMINALS: Final[Mapping[str, ToolStatus]] = {
    "tool.result": "completed",
    "tool.error": "failed",
    "tool.cancelled": "cancelled",
}


@dataclass(slots=True, eq=False)
class _Execution:
    """One execution, as its caller can ask for it."""

    id: str
    name: str
    started_at: int
    status: ToolStatus = "pending"
    completed_at: int | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""


class ToolHub:
    """The tool protocol of one server."""

    kinds: frozenset[TokenKind] = frozenset({"user", "agent"})

    def __init__(self, leaves: Leaves, *, most: int = EXECUTIONS) -> None:
        self.registry = Registry()
        self._leaves = leaves
        self._most = most

    def handlers(self, socket: Socket) -> Mapping[str, Handler]:
        """See `Spoken`."""
        desk = _Desk(socket, self.registry, self._leaves, self._most)
        return {
            "tool.register": desk.register,
            "tool.unregister": desk.unregister,
            "tool.list": desk.list,
            "tool.execute": desk.execute,
            "tool.cancel": desk.cancel,
            "tool.status": desk.status,
        }

    def resumers(self, socket: Socket) -> Mapping[str, Any]:  # noqa: ARG002 - tools have no log
        """See `Spoken`."""
        return {}

    async def left(self, socket: Socket) -> None:
        """See `Spoken`: its tools are gone, and those of its executions that ran here have ended with its link."""
        self.registry.unregister(socket)


class _Desk:
    """What the hub does for one connection."""

    def __init__(self, socket: Socket, registry: Registry, leaves: Leaves, most: int) -> None:
        self._socket = socket
        self._registry = registry
        self._leaves = leaves
        self._most = most
        self._known: OrderedDict[str, _Execution] = OrderedDict()

    async def register(self, link: Link, envelope: Envelope) -> None:
        if self._socket.caller.principal.kind != "user":
            raise Forbidden("an agent's process cannot offer tools", mend="use the token of a user")
        found = self._registry.register(self._socket, envelope.body.tools)
        told = [{"name": one.name, "id": one.id} for one in found]
        await link.send(envelope.scope, "tool.registered", {"tools": told}, reply_to=envelope.id)

    async def unregister(self, link: Link, envelope: Envelope) -> None:  # noqa: ARG002 - acked by the link
        self._registry.unregister(self._socket, envelope.body.names)

    async def list(self, link: Link, envelope: Envelope) -> None:
        body = envelope.body
        found = self._registry.listed(self._socket.caller.user, body.prefix, body.streaming)
        tools = [one.model_dump(mode="json") for one in found]
        await link.send(envelope.scope, "tools", {"tools": tools}, reply_to=envelope.id)

    async def status(self, link: Link, envelope: Envelope) -> None:
        found = self._known.get(envelope.body.execution)
        if found is None:
            raise NotFound("no execution of that name was begun on this connection")
        state = {
            "execution": found.id, "name": found.name, "status": found.status, "started_at": found.started_at,
            "completed_at": found.completed_at,
        }  # fmt: skip
        await link.send(envelope.scope, "tool.state", state, reply_to=envelope.id)

    async def cancel(self, link: Link, envelope: Envelope) -> None:  # noqa: ARG002 - acked by the link
        found = self._known.get(envelope.scope.partition(":")[2])
        if found is not None and not found.cancelled.is_set():
            found.reason = envelope.body.reason
            found.cancelled.set()

    async def execute(self, link: Link, envelope: Envelope) -> None:
        """Acked once it is known what to do with it; whatever comes then is told by the one terminal."""
        body: ToolExecute = envelope.body
        scope = envelope.scope
        execution = self._begun(body, scope, link)
        await link.send(scope, "ack", {}, reply_to=envelope.id)
        began = link.clock()
        try:
            type_, payload = await self._outcome(link, scope, body, execution)
        except OvernightError as error:
            type_, payload = "tool.error", {"code": error.code, "message": error.detail, "retryable": False}
        except BaseException:
            # Its caller is gone, or this is a fault of ours: either way it is not under way any more.
            execution.completed_at, execution.status = link.clock(), "failed"
            raise
        execution.completed_at = link.clock()
        execution.status = "timeout" if payload.get("code") == ToolTimeout.code else _TERMINALS[type_]
        await link.end(scope, type_, {"duration_ms": execution.completed_at - began, **payload})

    def _begun(self, body: ToolExecute, scope: str, link: Link) -> _Execution:
        known = self._known
        if scope != f"tool:{body.execution}":
            raise InvalidInput("the execution is not the one of the scope", mend="name the same id in both")
        if sum(one.completed_at is None for one in known.values()) >= self._most:
            raise RateLimited(f"{self._most} executions are under way on this connection")
        execution = known[body.execution] = _Execution(body.execution, body.name, link.clock())
        while len(known) > REMEMBERED:
            oldest = next((key for key, one in known.items() if one.completed_at is not None), None)
            if oldest is None:
                break
            del known[oldest]
        return execution

    async def _outcome(
        self, link: Link, scope: str, body: ToolExecute, execution: _Execution
    ) -> tuple[str, dict[str, Any]]:
        caller = self._socket.caller
        offered = self._registry.find(caller.user, body.name)
        arguments = arguments_of(offered, body.arguments)
        await self._leaves.check(caller, offered.meta, arguments)
        seconds = _seconds(body, link.clock())
        hosted = _Hosted(offered, f"tool:{secrets.token_hex(12)}", body, arguments, round(seconds * 1000))
        execution.status = "running"
        return await hosted.carried_out(link, scope, execution, seconds)


class _Hosted:
    """One execution at its host."""

    def __init__(
        self, offered: Offered, scope: str, body: ToolExecute, arguments: Mapping[str, Any], timeout_ms: int
    ) -> None:
        self._offered = offered
        self._link = offered.host.link
        self._scope = scope
        self._begun = False
        self._payload = {
            "execution": scope.partition(":")[2], "call": body.call, "name": body.name, "arguments": dict(arguments),
            "timeout_ms": timeout_ms,
        }  # fmt: skip

    async def carried_out(
        self, caller: Link, scope: str, execution: _Execution, seconds: float
    ) -> tuple[str, dict[str, Any]]:
        """The terminal to tell the caller. Raises ToolTimeout, ToolUnavailable."""
        forwarding = asyncio.create_task(self._forward(caller, scope, execution), name="forward an execution")
        stopping = asyncio.create_task(execution.cancelled.wait(), name="wait for a cancel")
        try:
            await asyncio.wait({forwarding, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if forwarding.done():
                return forwarding.result()
            if execution.cancelled.is_set():
                return await self._cancelled(forwarding, execution.reason)
            await self._stop("it took too long")
            raise ToolTimeout(f"{self._payload['name']} did not answer within {seconds:g} s")
        except BaseException:
            # Also where the caller is gone, or has lost the scope: nothing of it goes on at the host.
            if self._begun:
                await asyncio.shield(self._stop("its caller is gone"))
            raise
        finally:
            forwarding.cancel()
            stopping.cancel()
            await asyncio.gather(forwarding, stopping, return_exceptions=True)

    async def _forward(self, caller: Link, scope: str, execution: _Execution) -> tuple[str, dict[str, Any]]:
        try:
            self._begun = True
            await self._link.request(self._scope, "tool.execute", self._payload)
            async with self._link.inbox(self._scope) as inbox:
                async for envelope in inbox:
                    if envelope.type in _TERMINALS:
                        self._begun = False
                        return envelope.type, _plain(envelope)
                    if envelope.type == "tool.stream":
                        execution.status = "streaming"
                        try:
                            await caller.send(scope, "tool.stream", dict(envelope.payload))
                        except OvernightError as error:
                            await self._stop("its caller is gone")  # while the host's scope is open
                            raise _CallerGone(error.detail) from None
        except (ToolFailure, _CallerGone):
            raise
        except OvernightError as error:
            raise ToolUnavailable(
                f"the host of {self._payload['name']} does not answer: {error.detail}"
            ) from None
        raise ToolUnavailable(f"the host of {self._payload['name']} ended the execution without a word")

    async def _cancelled(
        self, forwarding: asyncio.Task[tuple[str, dict[str, Any]]], reason: str
    ) -> tuple[str, dict[str, Any]]:
        """What the host says of it, if it says so soon."""
        await self._stop(reason)
        await asyncio.wait({forwarding}, timeout=CANCEL_S)
        if forwarding.done() and forwarding.exception() is None and forwarding.result()[0] == "tool.result":
            return forwarding.result()  # it was quicker
        return "tool.cancelled", {"reason": reason}

    async def _stop(self, reason: str) -> None:
        """Have the host stop, once; one that is cut off hears it if it comes back."""
        self._begun = False
        said = {"reason": reason[:1000]}
        with contextlib.suppress(OvernightError, TimeoutError):
            if self._link.connection.state != "open":
                self._link.post(self._scope, "tool.cancel", said)
                return
            async with asyncio.timeout(CANCEL_S):
                await self._link.request(self._scope, "tool.cancel", said, timeout_s=CANCEL_S)


class _CallerGone(OvernightError):
    """The caller's scope is over, so there is nobody to tell."""


def _plain(envelope: Envelope) -> dict[str, Any]:
    """What is passed on; how long it took is measured here."""
    payload = dict(envelope.payload)
    payload.pop("duration_ms", None)
    return payload


def _seconds(body: ToolExecute, now_ms: int) -> float:
    """How long the execution may take. Raises ToolTimeout when its deadline is past."""
    given = USUAL_S if body.timeout_ms is None else body.timeout_ms / 1000
    if body.deadline is not None:
        given = min(given, (body.deadline - now_ms) / 1000)
    if given <= 0:
        raise ToolTimeout("its deadline was past before it was begun")
    return min(given, LONGEST_S)
