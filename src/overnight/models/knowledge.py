"""The names of models that are known without asking anybody. Loaded when somebody wants a list."""

from __future__ import annotations

from pydantic_ai.models import known_model_names

from overnight.models.endpoint import Endpoint


def known_ids(endpoint: Endpoint) -> list[str]:
    """The models of a provider's own service that the installed pydantic-ai knows by name."""
    if endpoint.name not in {"openai", "openai-chat", "anthropic", "google"}:
        return []
    names = (name.partition(":") for name in known_model_names())
    return [id for provider, _, id in names if provider == endpoint.name]
