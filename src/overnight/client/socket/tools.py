"""The tool protocol's two client sides: calling tools that others offer, and offering one's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import uuid4

import orjson
import structlog

from overnight.client.socket.inbox import Inbox
from overnight.client.socket.link import Handler, Link
from overnight.errors import Disconnected, OvernightError, ScopeOver, ToolFailure, ToolUnavailable, tree
from overnight.wire.socket.catalog.tools import MOST_TOOLS
from overnight.wire.socket.envelope import CONN, Envelope

LIST_S: Final = 30.0
PARCEL_BYTES: Final = 256 * 1024
"""Bytes of tools in one message."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a tool says before it is done."""

    percent: float | None = None
    partial: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool came to. `content` is a list of `{type: text, text}` and `{type: image, data, media_type}`."""

    content: Sequence[Mapping[str, Any]]
    is_error: bool = False
    details: Any = None
    duration_ms: int = 0

    @property
    def text(self) -> str:
        """All its words."""
        return "\n".join(str(part["text"]) for part in self.content if part.get("type") == "text")


Hear = Callable[[Progress], Awaitable[None]]


class ToolCalls:
    """Calls tools over one link. Each execution is a scope of its own, with one end."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self, prefix: str = "") -> list[Mapping[str, Any]]:
        """The tools that may be called, by name; each with `available`."""
        reply = await self._link.request(CONN, "tool.list", {"prefix": prefix}, timeout_s=LIST_S)
        found: list[Mapping[str, Any]] = reply.payload["tools"]
        return found

    async def execute(
        self, name: str, arguments: Mapping[str, Any] | str, *, call: str = "", timeout_s: float | None = None,
        hear: Hear | None = None, execution: str | None = None,
    ) -> Answer:  # fmt: skip
        """Have a tool called, and give what it came to.

        Raises ToolFailure in its kinds, Disconnected when the link ends first. Cancelling this cancels the execution.
        """
        id = execution or uuid4().hex
        scope = f"tool:{id}"
        payload: dict[str, Any] = {"execution": id, "call": call, "name": name, "arguments": arguments}
        if timeout_s is not None:
            payload["timeout_ms"] = max(1, round(timeout_s * 1000))
        async with self._link.inbox(scope) as inbox:
            try:
                await self._link.request(scope, "tool.execute", payload)
                ended = await _heard(inbox, hear)
            except OvernightError:
                raise
            except BaseException:
                # Cancelled, or `hear` has raised: nobody is left who would want its answer.
                await asyncio.shield(self._give_up(scope))
                raise
        return _answer(ended)

    async def cancel(self, execution: str, reason: str = "") -> None:
        """Want no more of it; idempotent, also for executions that are over or were never begun."""
        with contextlib.suppress(ScopeOver):
            await self._link.request(f"tool:{execution}", "tool.cancel", {"reason": reason})

    async def _give_up(self, scope: str) -> None:
        # A server that does not hear this ends the execution with the link, or by its clock.
        with contextlib.suppress(OvernightError):
            await self._link.request(scope, "tool.cancel", {"reason": "its caller gave up"}, timeout_s=5.0)


class Tool(Protocol):
    """One tool that a host offers."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """As `tool.register` takes it: name, description, parameters (JSON Schema of an object) …"""
        ...

    async def run(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        """Do it. What it raises is told as the execution's error; being cancelled, it must end soon."""
        ...


@dataclass(slots=True, eq=False)
class ToolHost:
    """Offers tools on a link: give `handlers` to the link, and `offer` them once it is greeted."""

    tools: Mapping[str, Tool]
    _running: dict[tuple[int, str], asyncio.Task[Answer]] = field(default_factory=dict)
    _reasons: dict[asyncio.Task[Answer], str] = field(default_factory=dict)

    def handlers(self) -> Mapping[str, Handler]:
        """For the link."""
        return {"tool.execute": self._execute, "tool.cancel": self._cancel}

    async def offer(self, link: Link) -> None:
        """Register everything; to be called for each link anew. Raises Nacked with the server's code."""
        for tools in _parcels([dict(tool.meta) for tool in self.tools.values()]):
            await link.request(CONN, "tool.register", {"tools": tools})

    async def close(self, reason: str) -> None:
        """Cancel what is under way, and tell its callers."""
        running = [task for task in self._running.values() if not task.done()]
        for task in running:
            self._reasons[task] = reason
            task.cancel()
        while self._running:
            await asyncio.wait(set(self._running.values()))
            await asyncio.sleep(0)

    async def _execute(self, link: Link, envelope: Envelope) -> None:
        scope = envelope.scope
        began = link.clock()

        async def hear(progress: Progress) -> None:
            await link.send(scope, "tool.stream", _streamed(progress))

        task = asyncio.create_task(self._run(envelope, hear), name=f"tool {envelope.body.name}")
        self._running[id(link), scope] = task  # before anything is awaited: a cancel may be right behind
        try:
            await link.send(scope, "ack", {}, reply_to=envelope.id)
            type_, payload = await self._ended(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            self._running.pop((id(link), scope), None)
            self._reasons.pop(task, None)
        await link.end(scope, type_, {**payload, "duration_ms": max(0, link.clock() - began)})

    async def _run(self, envelope: Envelope, hear: Hear) -> Answer:
        tool = self.tools.get(envelope.body.name)
        if tool is None:
            raise ToolUnavailable(f"{envelope.body.name} is not offered here any more")
        return await tool.run(envelope.body.arguments, hear)

    async def _ended(self, task: asyncio.Task[Answer]) -> tuple[str, dict[str, Any]]:
        await asyncio.wait({task})
        if task.cancelled():
            if task in self._reasons:
                return "tool.cancelled", {"reason": self._reasons[task]}
            return "tool.error", {"code": ToolFailure.code, "message": "the tool was cancelled from within"}
        error = task.exception()
        if error is None:
            answer = task.result()
            return "tool.result", {
                "content": list(answer.content), "is_error": answer.is_error, "details": answer.details
            }  # fmt: skip
        if isinstance(error, OvernightError):
            return "tool.error", {"code": error.code, "message": error.detail}
        _log.error("tool.failed", exc_info=error)
        return "tool.error", {"code": ToolFailure.code, "message": f"{type(error).__name__}: {error}"[:2000]}

    async def _cancel(self, link: Link, envelope: Envelope) -> None:
        task = self._running.get((id(link), envelope.scope))
        if task is not None and not task.done():
            self._reasons[task] = envelope.body.reason
            task.cancel()


async def _heard(inbox: Inbox, hear: Hear | None) -> Envelope:
    """The terminal. Raises ToolUnavailable where there is none."""
    async for envelope in inbox:
        if envelope.type != "tool.stream":
            return envelope
        if hear is not None:
            await hear(_progress(envelope.payload))
    raise ToolUnavailable("the execution ended without a word")


def _answer(envelope: Envelope) -> Answer:
    said = envelope.payload
    if envelope.type == "tool.result":
        return Answer(
            content=said["content"], is_error=said.get("is_error", False), details=said.get("details"),
            duration_ms=said.get("duration_ms", 0),
        )  # fmt: skip
    if envelope.type == "tool.cancelled":
        raise ToolCancelled(said.get("reason", "") or "somebody cancelled it")
    raise tool_failure(str(said["code"]), str(said["message"]))


class ToolCancelled(ToolFailure):
    """The execution was cancelled by somebody else."""

    code = "cancelled"


def tool_failure(code: str, message: str) -> ToolFailure | Disconnected:
    """The error with that code."""
    kinds = {kind.code: kind for kind in tree() if issubclass(kind, ToolFailure | Disconnected)}
    error = kinds.get(code, ToolFailure)(message)
    error.code = code  # type: ignore[misc]
    return error


def _parcels(tools: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """As many at a time as one message takes."""
    parcel: list[Mapping[str, Any]] = []
    size = 0
    for tool in tools:
        weight = len(orjson.dumps(tool))
        if parcel and (len(parcel) == MOST_TOOLS or size + weight > PARCEL_BYTES):
            yield parcel
            parcel, size = [], 0
        parcel.append(tool)
        size += weight
    if parcel:
        yield parcel


def _progress(said: Mapping[str, Any]) -> Progress:
    return Progress(percent=said.get("progress"), partial=said.get("partial"), status=said.get("status"))


def _streamed(progress: Progress) -> dict[str, Any]:
    said = {"progress": progress.percent, "partial": progress.partial, "status": progress.status}
    return {name: value for name, value in said.items() if value is not None}
