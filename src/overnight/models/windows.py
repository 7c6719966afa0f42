"""The context windows of models, from the list of prices. Loaded when somebody asks for one."""

from __future__ import annotations

from genai_prices.data_snapshot import get_snapshot

from overnight.models.endpoint import Endpoint


def window(endpoint: Endpoint, id: str) -> int | None:
    """The context window of a model in tokens, where the list knows it."""
    provider = "openai" if endpoint.kind == "openai-chat" else endpoint.kind
    try:
        _, found = get_snapshot().find_provider_model(
            id, provider=None, provider_id=provider, provider_api_url=None
        )
    except LookupError:
        return None
    return found.context_window
