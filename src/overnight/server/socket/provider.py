"""The provider protocol's server side: models asked for over a connection, with keys that never leave this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import structlog

from overnight.client.socket.link import Link
from overnight.client.socket.terms import Handler, Resumer
from overnight.domain.token import TokenKind
from overnight.errors import (
    Aborted,
    AuthRequired,
    Forbidden,
    ModelError,
    ModelTimeout,
    OvernightError,
    RateLimited,
)
from overnight.ids import ConnectionId, RunId
from overnight.ports.model import Done, ModelEvent, ModelFilter, ModelInfo, ModelRequest, Models, ModelUsage
from overnight.ports.model_ledger import Ending, ModelCall, ModelLedger
from overnight.server.auth import Caller
from overnight.server.socket.handlers import Socket
from overnight.wire.socket.catalog.streams import (
    Question,
    done_payload,
    event_payload,
    infos_payload,
    message_payload,
    usage_payload,
)
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.reconstruction import Reconstruction

_log = structlog.get_logger(__name__)

STREAMS: Final = 100
"""Answers that may be under way for one connection."""
STREAM_S: Final = 300.0
"""How long one may take."""


@dataclass(slots=True)
class _Stream:
    """An answer that is under way."""

    name: str
    run_id: RunId | None
    request: ModelRequest
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    said: Reconstruction = field(default_factory=Reconstruction)
    acked: bool = False
    aborted: str | None = None
    """Why, once somebody wanted no more of it."""

    @property
    def usage(self) -> ModelUsage:
        """As far as it is known."""
        return self.said.usage or ModelUsage()


class ProviderDesk:
    """The answers of one connection. `caller` says who it is, from the hello on.

    Each answer has exactly one terminal. Whoever leaves, aborts or is cut off for good ends the provider's request.
    """

    def __init__(
        self,
        models: Models,
        ledger: ModelLedger,
        caller: Callable[[], Caller],
        *,
        streams: int = STREAMS,
        stream_s: float = STREAM_S,
    ) -> None:
        self._models = models
        self._ledger = ledger
        self._caller = caller
        self._most = streams
        self._stream_s = stream_s
        self._live: dict[str, _Stream] = {}
        self._recording: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> int:
        """Answers under way."""
        return len(self._live)

    def handlers(self) -> Mapping[str, Handler]:
        """For the connection's link."""
        return {
            "stream.start": self._start,
            "stream.abort": self._abort,
            "complete": self._complete,
            "models.list": self._list,
            "sync": self._sync,
        }

    async def close(self) -> None:
        """Wait until everything is written down. After the link has ended."""
        while self._recording:
            await asyncio.wait(self._recording)

    async def _start(self, link: Link, envelope: Envelope) -> None:
        stream = self._open(envelope)
        try:
            with stream.scope:
                info = await self._admit(stream)
                await link.send(envelope.scope, "ack", {"model": info.name}, reply_to=envelope.id)
                stream.acked = True
                await self._answer(link, envelope.scope, stream, info)
            if stream.aborted is not None and not stream.acked:
                # Given up before it had begun: the request is answered all the same.
                await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
                await link.end(envelope.scope, "aborted", _aborted(stream))
        finally:
            del self._live[envelope.scope]

    async def _answer(self, link: Link, scope: str, stream: _Stream, info: ModelInfo) -> None:
        async def tell(event: ModelEvent) -> None:
            await link.send(scope, event.type, event_payload(event))

        try:
            done = await self._ask(stream, info, tell)
        except ModelError as error:
            await link.end(scope, "error", _failed(error, stream))
        else:
            await link.end(scope, "done", done_payload(done))

    async def _complete(self, link: Link, envelope: Envelope) -> None:
        stream = self._open(envelope)
        try:
            with stream.scope:
                info = await self._admit(stream)
                done = await self._ask(stream, info, _keep_quiet)
                await link.end(envelope.scope, "completed", done_payload(done), reply_to=envelope.id)
            if stream.aborted is not None:
                raise Aborted(stream.aborted)
        finally:
            del self._live[envelope.scope]

    async def _ask(self, stream: _Stream, info: ModelInfo, tell: Callable[[ModelEvent], Any]) -> Done:
        """The whole answer, written down. Raises ModelError, and whatever `tell` raises."""
        ending: Ending = "lost"
        reason = ""
        try:
            async with asyncio.timeout(self._stream_s):
                done = await self._read(stream, tell)
            ending, reason = "done", done.reason
        except TimeoutError:
            ending, reason = "error", ModelTimeout.code
            raise ModelTimeout(f"the answer took longer than {self._stream_s:g} s") from None
        except ModelError as error:
            ending, reason = "error", error.code
            raise
        except OvernightError as error:
            # Whoever asked is gone or too slow, or the conversation makes no sense.
            reason = error.code
            raise
        finally:
            if stream.aborted is not None:
                ending, reason = "aborted", ""
            written = self._write_down(stream, info, ending, reason)
            if ending in {"done", "error"} and written is not None:
                await asyncio.shield(written)
        return done

    async def _read(self, stream: _Stream, tell: Callable[[ModelEvent], Any]) -> Done:
        async with self._models.stream(stream.request) as events:
            async for event in events:
                stream.said.take(event)
                if isinstance(event, Done):
                    return event
                await tell(event)
        raise ModelError("the answer ended without an end")

    async def _abort(self, link: Link, envelope: Envelope) -> None:
        stream = self._live.get(envelope.scope)
        if stream is None or stream.aborted is not None:
            return
        stream.aborted = envelope.body.reason
        if stream.acked:
            await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
            await link.end(envelope.scope, "aborted", _aborted(stream))
        stream.scope.cancel()

    async def _list(self, link: Link, envelope: Envelope) -> None:
        self._check()
        wanted = envelope.body
        found = await self._models.list(
            ModelFilter(provider=wanted.provider, model=wanted.model, include_unready=wanted.include_unready)
        )
        await link.send(envelope.scope, "models", infos_payload(found), reply_to=envelope.id)

    async def _sync(self, link: Link, envelope: Envelope) -> None:
        stream = self._live.get(f"stream:{envelope.body.stream}")
        told: dict[str, Any] = {"stream": envelope.body.stream, "over": stream is None}
        if stream is not None:
            told["message"] = message_payload(stream.said.message())
        await link.send(envelope.scope, "synced", told, reply_to=envelope.id)

    def _check(self) -> Caller:
        caller = self._caller()
        kind = caller.principal.kind
        if caller.share is not None or not (kind == "user" or (kind == "agent" and caller.claim is not None)):
            raise Forbidden("models are for users, and for the agents of runs")
        return caller

    def _open(self, envelope: Envelope) -> _Stream:
        caller = self._check()
        question: Question = envelope.body
        if len(self._live) >= self._most:
            raise RateLimited(
                f"{self._most} answers are under way on this connection", mend="wait until one has ended"
            )
        name = envelope.scope.partition(":")[2]
        stream = _Stream(name, caller.run_id, question.request())
        self._live[envelope.scope] = stream
        return stream

    async def _admit(self, stream: _Stream) -> ModelInfo:
        """The model that was asked for. Raises ModelNotFound, AuthRequired, BudgetSpent."""
        info = await self._models.resolve(stream.request.model)
        if not info.ready:
            raise AuthRequired(
                f"the key of {info.provider} is missing", mend=f"the operator gives it as {info.needs}"
            )
        if stream.run_id is not None:
            await self._ledger.allow(stream.run_id)
        return info

    def _write_down(
        self, stream: _Stream, info: ModelInfo, ending: Ending, reason: str
    ) -> asyncio.Task[None] | None:
        if stream.run_id is None:
            return None
        call = ModelCall(
            stream=stream.name, model=info.name, ending=ending, reason=reason, usage=stream.usage
        )
        task = asyncio.create_task(self._record(stream.run_id, call))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        return task

    async def _record(self, run_id: RunId, call: ModelCall) -> None:
        try:
            await self._ledger.record(run_id, call)
        except OvernightError as error:
            # The answer is there and was paid for: it is not withheld because it cannot be written down.
            _log.error("model_call.not_recorded", run_id=run_id, model=call.model, error=error.detail)


class Provider:
    """The provider protocol for a whole server: see `handlers.Spoken`."""

    kinds: frozenset[TokenKind] = frozenset({"user", "agent"})

    def __init__(self, models: Models, ledger: ModelLedger) -> None:
        self._models = models
        self._ledger = ledger
        self._desks: dict[ConnectionId, ProviderDesk] = {}

    def handlers(self, socket: Socket) -> Mapping[str, Handler]:
        """A desk of its own for each link."""
        desk = self._desks[socket.id] = ProviderDesk(self._models, self._ledger, lambda: socket.caller)
        return desk.handlers()

    def resumers(self, socket: Socket) -> Mapping[str, Resumer]:
        """Streams have no log; what is kept of them while a link is cut is the link's own."""
        del socket
        return {}

    async def left(self, socket: Socket) -> None:
        """Whatever was under way is written down."""
        desk = self._desks.pop(socket.id, None)
        if desk is not None:
            await desk.close()


async def _keep_quiet(event: ModelEvent) -> None:
    """For an answer that is told in one piece."""


def _failed(error: ModelError, stream: _Stream) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.detail,
        "retryable": error.retryable,
        "retry_after_s": error.retry_after_s,
        "usage": usage_payload(stream.usage) if stream.said.usage else None,
    }


def _aborted(stream: _Stream) -> dict[str, Any]:
    usage = usage_payload(stream.usage) if stream.said.usage else None
    return {"reason": stream.aborted or "", "usage": usage}
