"""The provider protocol's client side: answers of models over a link, each with a queue of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

from overnight.client.socket.inbox import Inbox
from overnight.client.socket.link import Link, Nacked
from overnight.errors import (
    Aborted,
    BodyTooLarge,
    ContextOverflow,
    ModelError,
    NotFound,
    OvernightError,
    ScopeOver,
    tree,
)
from overnight.ports.model import (
    AssistantMessage,
    Done,
    ModelEvent,
    ModelFilter,
    ModelInfo,
    ModelRequest,
)
from overnight.wire.socket.catalog.streams import event_of, question_payload
from overnight.wire.socket.envelope import CONN, Envelope
from overnight.wire.socket.reconstruction import Reconstruction

START_S: Final = 60.0
"""How long a server may take to accept a question; it loads a provider's client for the first one."""
COMPLETE_S: Final = 310.0
"""How long it may take to answer one in one piece."""


class _State:
    """What is known of one stream."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.said = Reconstruction()
        self.error: OvernightError | None = None
        self.over = asyncio.Event()
        self.read = False
        """Somebody iterates over it."""

    def end(self, error: OvernightError | None = None) -> None:
        """The first end counts."""
        if not self.over.is_set():
            self.error = error
            self.over.set()


class ModelStreams:
    """Model answers over one link. A stream is known until `remove_stream_state`; what comes later is dropped."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._states: dict[str, _State] = {}

    @property
    def streams(self) -> tuple[str, ...]:
        """Those that have not been removed."""
        return tuple(self._states)

    async def start_stream(
        self, request: ModelRequest, *, stream: str | None = None, window: int | None = None
    ) -> str:
        """Ask a model; the name of the stream, whose events can be read from now on.

        `window`: how many events may be under way before they are read. Raises Nacked with the server's code:
        `model_not_found`, `auth_required`, `rate_limited`, `budget_spent` …
        """
        name = stream or uuid4().hex
        scope = f"stream:{name}"
        if name in self._states:
            raise ValueError(f"the stream {name} is in use")
        payload = question_payload(request)
        if window is not None:
            payload["flow"] = {"window": window}
        state = self._states[name] = _State(self._link.inbox(scope))
        try:
            await self._link.request(scope, "stream.start", payload, timeout_s=START_S)
        except BaseException:
            self._states.pop(name, None)
            state.inbox.close()
            raise
        return name

    async def events(self, stream: str) -> AsyncIterator[ModelEvent]:
        """Its events as they come, `Done` the last. One reader at a time.

        Raises ModelError as `ports.model.Models.stream` does, Aborted, or what has ended the link.
        """
        state = self._state(stream)
        if state.read:
            raise ValueError(f"somebody reads the stream {stream} already")
        state.read = True
        try:
            async for envelope in state.inbox:
                event = self._taken(state, envelope)
                if event is not None:
                    yield event
        except OvernightError as error:
            state.end(error)
            raise
        finally:
            state.read = False
        if state.error is not None:
            raise state.error

    async def wait_result(self, stream: str, *, timeout_s: float | None = None) -> Done:
        """The whole answer, whether somebody reads its events or not.

        Raises ModelError, Aborted, or what has ended the link; TimeoutError after `timeout_s`, which ends nothing.
        """
        state = self._state(stream)
        async with asyncio.timeout(timeout_s):
            if state.read:
                await state.over.wait()
            elif not state.over.is_set():
                async for _ in self.events(stream):
                    pass
        if state.error is not None:
            raise state.error
        if state.said.done is None:
            raise ModelError("the answer ended without an end")
        return state.said.done

    def partial(self, stream: str) -> AssistantMessage:
        """What has been read of the answer."""
        return self._state(stream).said.message()

    async def sync(self, stream: str) -> AssistantMessage | None:
        """What the server has heard of the answer so far; None where it is over."""
        reply = await self._link.request(CONN, "sync", {"stream": stream})
        found: AssistantMessage | None = reply.body.message
        return found

    async def abort(self, stream: str, reason: str = "") -> None:
        """Want no more of it; idempotent, also for streams that are over or were never there."""
        with contextlib.suppress(ScopeOver):
            await self._link.request(f"stream:{stream}", "stream.abort", {"reason": reason})

    async def close_stream(self, stream: str) -> None:
        """Stop reading and abort it, unless it is over; whoever waits for it gets Aborted. Idempotent."""
        state = self._states.get(stream)
        if state is None or state.over.is_set():
            return
        state.end(Aborted("the stream was closed by its reader"))
        state.inbox.end()
        await self.abort(stream, "closed by its reader")

    def remove_stream_state(self, stream: str) -> None:
        """Forget it. What still comes is dropped and does not bring it back. Idempotent."""
        state = self._states.pop(stream, None)
        if state is not None:
            state.end(Aborted("the stream was removed by its reader"))
            state.inbox.close()

    async def complete(self, request: ModelRequest, *, timeout_s: float = COMPLETE_S) -> Done:
        """The answer in one piece. Raises Nacked with the server's code, which is that of what went wrong."""
        scope = f"stream:{uuid4().hex}"
        async with self._link.inbox(scope):
            reply = await self._link.request(
                scope, "complete", question_payload(request), timeout_s=timeout_s
            )
            return _done(reply)

    async def models(self, filter: ModelFilter | None = None) -> tuple[ModelInfo, ...]:
        """The models of the server, its default first."""
        wanted = filter or ModelFilter()
        payload = {
            "provider": wanted.provider, "model": wanted.model, "include_unready": wanted.include_unready
        }  # fmt: skip
        reply = await self._link.request(CONN, "models.list", payload, timeout_s=START_S)
        return tuple(reply.body.models)

    def _taken(self, state: _State, envelope: Envelope) -> ModelEvent | None:
        match envelope.type:
            case "error":
                state.end(model_error(envelope.payload))
            case "aborted":
                state.end(Aborted(str(envelope.payload.get("reason", ""))))
            case _:
                event = event_of(envelope.type, envelope.payload)
                state.said.take(event)
                if isinstance(event, Done):
                    state.end()
                return event
        return None

    def _state(self, stream: str) -> _State:
        try:
            return self._states[stream]
        except KeyError:
            raise NotFound(f"the stream {stream} is not known") from None


class RemoteModels:
    """`ports.model.Models` over a link: for a process that has no key."""

    def __init__(self, link: Link) -> None:
        self._streams = ModelStreams(link)

    async def list(self, filter: ModelFilter) -> tuple[ModelInfo, ...]:
        """As the port promises, except that it raises what has ended the link."""
        return await self._streams.models(filter)

    async def resolve(self, name: str) -> ModelInfo:
        """As the port promises."""
        found = await self._streams.models(ModelFilter(model=name or None))
        if not found or not (name or found[0].default):
            raise model_error({"code": "model_not_found", "message": f"no model is called {name!r}"})
        return found[0]

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        """As the port promises."""
        try:
            name = await self._streams.start_stream(request)
        except Nacked as error:
            raise _refused(error) from error
        except BodyTooLarge as error:
            # A conversation that does not fit into one message has to become shorter, too.
            raise ContextOverflow(error.detail) from error
        try:
            yield self._streams.events(name)
        finally:
            try:
                await self._streams.close_stream(name)
            finally:
                self._streams.remove_stream_state(name)


def model_error(said: dict[str, Any] | Any) -> ModelError:
    """The error that a terminal or a nack tells of, as the class with that code where it is one of models."""
    code = str(said["code"])
    kinds = {kind.code: kind for kind in tree() if issubclass(kind, ModelError)}
    kind = kinds.get(code, ModelError)
    error = kind(
        str(said["message"]),
        mend=str(said.get("mend", "")),
        retryable=bool(said.get("retryable", False)),
        retry_after_s=said.get("retry_after_s"),
    )
    error.code = code  # type: ignore[misc]
    return error


def _refused(error: Nacked) -> ModelError:
    extra = error.extra
    return model_error({
        "code": error.code, "message": error.detail, "mend": error.mend,
        "retryable": extra.get("retryable", False), "retry_after_s": extra.get("retry_after_s"),
    })  # fmt: skip


def _done(reply: Envelope) -> Done:
    event = event_of(reply.type, reply.payload)
    if not isinstance(event, Done):
        raise ModelError(f"{reply.type} is no answer", retryable=False)
    return event
