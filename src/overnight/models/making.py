"""A pydantic-ai model for an endpoint. Keys and addresses are given explicitly: none is taken from the environment."""

from __future__ import annotations

from typing import Any, Final, assert_never

import httpx2
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from overnight.models.endpoint import Endpoint

NO_KEY: Final = "no-key"
"""What a service is sent that wants none; its client insists on something."""
_ADDRESSES: Final = {"openai": "https://api.openai.com/v1", "openai-chat": "https://api.openai.com/v1"}
_COMPLETE: Final = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
"""An answer that stops without saying why has been cut off."""


def provider(endpoint: Endpoint, client: httpx2.AsyncClient) -> Provider[Any]:
    """The endpoint's service, reached through `client`. Loads what it needs; takes a second the first time."""
    key = endpoint.key or NO_KEY
    match endpoint.kind:
        case "openai" | "openai-chat":
            if endpoint.name in _ADDRESSES:
                return OpenAIProvider(
                    base_url=endpoint.base_url or _ADDRESSES[endpoint.name], api_key=key, http_client=client
                )
            address = endpoint.base_url or _ADDRESSES[endpoint.kind]
            return OpenAICompatibleProvider(endpoint.name, base_url=address, api_key=key, http_client=client)
        case "anthropic":
            from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415 -- heavy, seldom all

            address = endpoint.base_url or "https://api.anthropic.com"
            return AnthropicProvider(api_key=key, base_url=address, http_client=client)
        case "google":
            from pydantic_ai.providers.google import GoogleProvider  # noqa: PLC0415

            address = endpoint.base_url or "https://generativelanguage.googleapis.com"
            return GoogleProvider(api_key=key, base_url=address, http_client=client)
        case "github-copilot":
            from pydantic_ai.providers.github_copilot import GitHubCopilotProvider  # noqa: PLC0415

            address = endpoint.base_url or "https://api.githubcopilot.com"
            return GitHubCopilotProvider(api_key=key, base_url=address, http_client=client)
        case "scripted":
            raise ValueError("a script is no provider")
        case _ as never:
            assert_never(never)


def model(endpoint: Endpoint, id: str, provider: Provider[Any]) -> Model[Any]:
    """One of the service's models."""
    match endpoint.kind:
        case "openai":
            return OpenAIResponsesModel(id, provider=provider)
        case "openai-chat":
            return OpenAIChatModel(id, provider=provider, profile=_COMPLETE)
        case "anthropic":
            from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415

            return AnthropicModel(id, provider=provider)
        case "google":
            from pydantic_ai.models.google import GoogleModel  # noqa: PLC0415

            return GoogleModel(id, provider=provider)
        case "github-copilot":
            from pydantic_ai.models.github_copilot import GitHubCopilotModel  # noqa: PLC0415

            return GitHubCopilotModel(id, provider=provider, profile=_COMPLETE)
        case "scripted":
            raise ValueError("a script is no provider")
        case _ as never:
            assert_never(never)
