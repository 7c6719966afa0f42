"""Which model a name means, and which models there are. Pure: nobody is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from overnight.errors import ModelNotFound
from overnight.models.endpoint import Endpoint, ModelSettings
from overnight.ports.model import ModelFilter, ModelInfo

KnownIds = Callable[[Endpoint], Iterable[str]]
"""The models of an endpoint that are known without asking it."""
Window = Callable[[Endpoint, str], int | None]
"""The context window of one of its models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to ask, and for what."""

    endpoint: Endpoint
    id: str

    @property
    def name(self) -> str:
        """The model's full name."""
        return f"{self.endpoint.name}:{self.id}"


class Catalog:
    """The operator's models by name."""

    def __init__(self, settings: ModelSettings) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in settings.endpoints}
        self._aliases = settings.aliases
        self._default = settings.default

    def find(self, name: str) -> Place:
        """What `name` means: a full name `endpoint:model`, an alias, or empty for the default model.

        Raises ModelNotFound.
        """
        if not name:
            return self.default()
        full = self._aliases.get(name, name)
        before, colon, id = full.partition(":")
        endpoint = self._endpoints.get(before)
        if not colon or endpoint is None or not id:
            raise ModelNotFound(
                f"no model is called {name!r}",
                mend=f"a model is called PROVIDER:NAME, where PROVIDER is one of {', '.join(self._endpoints)}",
            )
        if endpoint.models and id not in endpoint.models:
            raise ModelNotFound(
                f"{before} offers no model {id!r}", mend=f"it offers {', '.join(endpoint.models)}"
            )
        return Place(endpoint=endpoint, id=id)

    def default(self) -> Place:
        """The operator's default model, else the usual one of the first endpoint that is ready and has one.

        Raises ModelNotFound when there is none.
        """
        if self._default:
            return self.find(self._default)
        for endpoint in self._endpoints.values():
            if not endpoint.needs and endpoint.usual:
                return Place(endpoint=endpoint, id=endpoint.usual)
        raise ModelNotFound(
            "no model is configured",
            mend="give the server the key of a provider (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY …), "
            "or name one beneath [models]",
        )

    def list(self, filter: ModelFilter, *, known: KnownIds, window: Window) -> tuple[ModelInfo, ...]:
        """Every model that fits, the default first, then in the operator's order."""
        default = self._default_place()
        found = self._named(filter.model) if filter.model else self._places(default, known)
        places = {place.name: place for place in found}
        return tuple(
            self.describe(place, default=default, window=window)
            for place in places.values()
            if filter.provider in (None, place.endpoint.name)
            and (filter.include_unready or not place.endpoint.needs)
        )

    def describe(self, place: Place, *, default: Place | None = None, window: Window) -> ModelInfo:
        """What is known about one model."""
        default = default or self._default_place()
        return ModelInfo(
            name=place.name,
            provider=place.endpoint.name,
            id=place.id,
            aliases=tuple(alias for alias, name in self._aliases.items() if name == place.name),
            default=default is not None and default.name == place.name,
            ready=not place.endpoint.needs,
            needs=place.endpoint.needs,
            context_window=window(place.endpoint, place.id),
        )

    def _places(self, default: Place | None, known: KnownIds) -> Iterator[Place]:
        if default is not None:
            yield default
        for name in self._aliases.values():
            yield self.find(name)
        for endpoint in self._endpoints.values():
            usual = (endpoint.usual,) if endpoint.usual else ()
            for id in endpoint.models or (*usual, *known(endpoint)):
                yield Place(endpoint=endpoint, id=id)

    def _named(self, name: str) -> Iterator[Place]:
        """What a full name or an alias means, also where nobody has listed it."""
        try:
            yield self.find(name)
        except ModelNotFound:
            return

    def _default_place(self) -> Place | None:
        try:
            return self.default()
        except ModelNotFound:
            return None
