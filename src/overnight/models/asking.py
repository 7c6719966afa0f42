"""Asks one endpoint's models through pydantic-ai. Loaded when a model is used for the first time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import anyio
import httpx2
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models import Model, create_async_httpx2_client

from overnight.models.endpoint import Endpoint
from overnight.models.events import events
from overnight.models.failures import failure
from overnight.models.making import model, provider
from overnight.models.messages import Origin, to_provider
from overnight.models.options import parameters, settings
from overnight.ports.model import ModelEvent, ModelRequest

HANG_UP_S: Final = 5.0
"""How long a provider's client may take to let go of its connection."""


class Asker:
    """One endpoint's models, with the connections to it. Belongs to one event loop; `close` when done."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client = create_async_httpx2_client()
        self._client.event_hooks = {**self._client.event_hooks, "response": [_remember]}
        self._provider = provider(endpoint, self._client)
        self._models: dict[str, Model[Any]] = {}

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._client.aclose()

    @asynccontextmanager
    async def stream(self, id: str, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        """As `Models.stream`, for the model that the endpoint itself calls `id`."""
        chosen = self._model(id)
        origin = Origin(endpoint=self._endpoint.name, url=chosen.base_url)
        conversation = to_provider(request.context, origin)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_hanging_up())
            try:
                answer = await stack.enter_async_context(
                    model_request_stream(
                        chosen,
                        conversation,
                        model_settings=settings(request.options, self._endpoint.kind, chosen),
                        model_request_parameters=parameters(request.context.tools),
                        instrument=False,
                    )
                )
            except Exception as error:
                # Clients of providers throw what they like; only what we make of it leaves this package.
                raise failure(error, self._endpoint) from error
            yield await stack.enter_async_context(aclosing(self._events(events(answer, self._endpoint.name))))

    async def _events(self, found: AsyncIterator[ModelEvent]) -> AsyncGenerator[ModelEvent]:
        try:
            async for event in found:
                yield event
        except Exception as error:
            raise failure(error, self._endpoint) from error

    def _model(self, id: str) -> Model[Any]:
        if id not in self._models:
            self._models[id] = model(self._endpoint, id, self._provider)
        return self._models[id]


@asynccontextmanager
async def _hanging_up() -> AsyncGenerator[None]:
    """Closes the provider's responses to whatever is asked inside, read to their end or not.

    Not every provider's client does so by itself for an answer that is left half-way.
    """
    responses: list[httpx2.Response] = []
    token = _OPEN.set(responses)
    try:
        yield
    finally:
        _OPEN.reset(token)
        with anyio.move_on_after(HANG_UP_S, shield=True):
            for response in responses:
                await response.aclose()


async def _remember(response: httpx2.Response) -> None:
    responses = _OPEN.get()
    if responses is not None:
        responses.append(response)


_OPEN: ContextVar[list[httpx2.Response] | None] = ContextVar(
    "responses of the answer under way", default=None
)
