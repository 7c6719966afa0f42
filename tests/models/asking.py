"""What the tests of models share: an endpoint at a scripted server, a question, and the whole of its answer."""

from __future__ import annotations

from typing import Any

from overnight.models.configured import ConfiguredModels
from overnight.models.endpoint import Endpoint, EndpointKind, ModelSettings
from overnight.ports.model import (
    Context,
    Done,
    Message,
    ModelEvent,
    ModelOptions,
    ModelRequest,
    TextBlock,
    Tool,
    UserMessage,
)
from overnight.testing.model_server import ModelServer

KEY = "sk-the-operators-own-0123456789"
KINDS: tuple[EndpointKind, ...] = ("openai", "openai-chat", "anthropic", "google", "github-copilot")
IDS = {"openai": "gpt-5.6-terra", "openai-chat": "gpt-5.6-terra", "anthropic": "claude-sonnet-4-6",
       "google": "gemini-3.8-flash", "github-copilot": "gpt-5.6-terra"}  # fmt: skip
TOOL = Tool(
    name="shell",
    description="Runs a command.",
    parameters={
        "type": "object",
        "properties": {"command": {"type": "string"}, "why": {"type": "string"}},
        "required": ["command"],
    },
)


def endpoint(kind: EndpointKind, server: ModelServer, **other: Any) -> Endpoint:
    """The server as a provider of that kind."""
    v1 = kind in {"openai", "openai-chat"}
    return Endpoint(
        name=kind, kind=kind, base_url=server.url + ("/v1" if v1 else ""), **({"key": KEY} | other)
    )


def models(*endpoints: Endpoint) -> ConfiguredModels:
    """Models at these endpoints; the caller closes them."""
    return ConfiguredModels(ModelSettings(endpoints=endpoints))


def say(text: str) -> UserMessage:
    """A message of the user."""
    return UserMessage(content=(TextBlock(text=text),))


def request(kind: str, *messages: Message, **options: Any) -> ModelRequest:
    """A question with a tool."""
    return ModelRequest(
        model=f"{kind}:{IDS[kind]}",
        context=Context(
            system="You are careful.", messages=messages or (say("Do the work."),), tools=(TOOL,)
        ),
        options=ModelOptions(**options),
    )


async def ask(asked: ConfiguredModels, question: ModelRequest) -> list[ModelEvent]:
    """Every event of the answer."""
    async with asked.stream(question) as events:
        return [event async for event in events]


def last(events: list[ModelEvent]) -> Done:
    """The end of a complete answer."""
    assert isinstance(events[-1], Done)
    return events[-1]
