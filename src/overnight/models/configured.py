"""The models that the operator has configured, behind the port. Importing this loads no provider's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from overnight.errors import AuthRequired
from overnight.models.catalog import Catalog, Place
from overnight.models.endpoint import Endpoint, ModelSettings
from overnight.models.scripted import ScriptedModel
from overnight.ports.model import ModelEvent, ModelFilter, ModelInfo, ModelRequest

if TYPE_CHECKING:
    from overnight.models.asking import Asker


class ConfiguredModels:
    """`ports.model.Models` over the operator's endpoints. Belongs to one event loop; `close` when done."""

    def __init__(self, settings: ModelSettings) -> None:
        self._catalog = Catalog(settings)
        self._askers: dict[str, Asker] = {}
        self._scripts: dict[str, ScriptedModel] = {}
        self._loading = asyncio.Lock()

    async def list(self, filter: ModelFilter) -> tuple[ModelInfo, ...]:
        """As the port promises."""
        return await asyncio.to_thread(_listed, self._catalog, filter)

    async def resolve(self, name: str) -> ModelInfo:
        """As the port promises."""
        place = self._catalog.find(name)
        return await asyncio.to_thread(_described, self._catalog, place)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        """As the port promises."""
        place = self._catalog.find(request.model)
        if place.endpoint.needs:
            raise AuthRequired(
                f"{place.endpoint.name} has no key",
                mend=f"the operator gives one to the server as {place.endpoint.needs}",
            )
        if place.endpoint.kind == "scripted":
            async with self._script(place).stream(request) as events:
                yield events
            return
        asker = await self._asker(place.endpoint)
        async with asker.stream(place.id, request) as events:
            yield events

    async def close(self) -> None:
        """Close every connection to a provider. Idempotent."""
        while self._askers:
            _, asker = self._askers.popitem()
            await asker.close()

    def _script(self, place: Place) -> ScriptedModel:
        name = place.endpoint.name
        if name not in self._scripts:
            self._scripts[name] = ScriptedModel(place.endpoint)
        return self._scripts[name]

    async def _asker(self, endpoint: Endpoint) -> Asker:
        async with self._loading:
            if endpoint.name not in self._askers:
                # The client of a provider takes up to a second to load: not on the event loop.
                self._askers[endpoint.name] = await asyncio.to_thread(_asker, endpoint)
            return self._askers[endpoint.name]


def _asker(endpoint: Endpoint) -> Asker:
    from overnight.models.asking import Asker  # noqa: PLC0415 -- 40 to 100 MiB that an idle server does without

    return Asker(endpoint)


def _listed(catalog: Catalog, filter: ModelFilter) -> tuple[ModelInfo, ...]:
    from overnight.models.knowledge import known_ids  # noqa: PLC0415 -- the same

    def known(endpoint: Endpoint) -> Iterable[str]:
        # What cannot be used is said once for its provider, not for each of its models.
        return () if endpoint.needs else known_ids(endpoint)

    return catalog.list(filter, known=known, window=_window)


def _described(catalog: Catalog, place: Place) -> ModelInfo:
    return catalog.describe(place, window=_window)


def _window(endpoint: Endpoint, id: str) -> int | None:
    if endpoint.kind == "scripted":
        return None
    from overnight.models.windows import window  # noqa: PLC0415 -- the same, if less of it

    return window(endpoint, id)
