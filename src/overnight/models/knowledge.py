"""What is known about models without asking anybody: names and context windows. Loaded when it is asked for."""

from __future__ import annotations

from genai_prices.data_snapshot import get_snapshot
from pydantic_ai.models import known_model_names

from overnight.models.endpoint import Endpoint


def known_ids(endpoint: Endpoint) -> list[str]:
    """The models of a provider's own service that the installed pydantic-ai knows by name."""
    if endpoint.name not in {"openai", "openai-chat", "anthropic", "google"}:
        return []
    names = (name.partition(":") for name in known_model_names())
    return [id for provider, _, id in names if provider == endpoint.name]


def window(endpoint: Endpoint, id: str) -> int | None:
    """The context window of a model, where the price list knows it."""
    provider = "openai" if endpoint.kind == "openai-chat" else endpoint.kind
    try:
        _, found = get_snapshot().find_provider_model(
            id, provider=None, provider_id=provider, provider_api_url=None
        )
    except LookupError:
        return None
    return found.context_window
