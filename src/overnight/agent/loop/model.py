"""The model port as a model of pydantic-ai.

pydantic-ai decides when the model is asked; what it is told is the session's history, which is the only copy of the
conversation. A request whose stream breaks off is repeated here, below the place where tools are called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from pydantic_ai.messages import (
    FinishReason,
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from overnight.agent.history import History
from overnight.agent.loop.aloud import Aloud
from overnight.agent.loop.retry import Patience
from overnight.agent.loop.telling import Listener
from overnight.agent.pairing import told_apart
from overnight.errors import ModelError
from overnight.ports.model import (
    AssistantMessage,
    Context,
    Done,
    ModelEvent,
    ModelOptions,
    ModelRequest,
    Models,
    ModelUsage,
    StopReason,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    Tool,
    ToolCallBlock,
)

_REASONS: Final[dict[StopReason, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_use": "tool_call",
    "content_filter": "content_filter",
}

_NOTHING: Final = "(nothing to add)"
"""Stands for an answer without a word, which pydantic-ai would ask for again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How one session asks its model."""

    models: Models
    name: str
    """A name or alias; empty for the default model."""
    system: str
    options: ModelOptions
    patience: Patience
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep


class PortModel(Model):
    """Answers pydantic-ai by asking `asking.models`, and keeps each answer in the history before it is acted on."""

    def __init__(self, asking: Asking, history: History, listener: Listener) -> None:
        super().__init__()
        self._asking = asking
        self._history = history
        self._listener = listener
        self.usage = ModelUsage()
        """Of all requests so far, those included that were broken off and said what they had used."""
        self.reason: StopReason = "stop"
        """Why the last answer has ended."""
        self.answers = 0
        """How many the history has got."""

    @property
    def model_name(self) -> str:
        """See `Model`."""
        return self._asking.name or "default"

    @property
    def system(self) -> str:
        """See `Model`: the kind of provider, as pydantic-ai calls it."""
        return "overnight"

    async def request(
        self,
        messages: list[ModelMessage],  # noqa: ARG002 - the history has them
        model_settings: ModelSettings | None,  # noqa: ARG002 - the options have them
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """One answer. Raises ModelError once trying again is no use."""
        tools = tuple(
            Tool(name=tool.name, description=tool.description or "", parameters=tool.parameters_json_schema)
            for tool in model_request_parameters.function_tools
        )
        said = self._history.messages
        done = await self.answer(Context(system=self._asking.system, messages=said, tools=tools))
        ids = {
            call.id for before in said if isinstance(before, AssistantMessage) for call in before.tool_calls
        }
        done = replace(done, message=told_apart(done.message, ids))
        if done.message.text.strip() or done.message.tool_calls:
            # An answer without a word is an end, but providers do not take it back.
            self._history.add(done.message)
        self.answers += 1
        self.reason = done.reason
        return _response(done, self.model_name)

    async def answer(self, context: Context, *, aloud: bool = True) -> Done:
        """One answer to `context`; it is in no history yet. `aloud`: the listener hears it grow."""
        request = ModelRequest(model=self._asking.name, context=context, options=self._asking.options)
        telling = Aloud(self._listener) if aloud else None
        tries = 0
        while True:
            try:
                return await self._once(request, telling)
            except ModelError as error:
                tries += 1
                wait = self._asking.patience.wait(tries, error)
                if wait is None:
                    raise
                if telling is not None:
                    await telling.broke_off(error.detail)
                await self._asking.wait(wait)

    async def _once(self, request: ModelRequest, telling: Aloud | None) -> Done:
        async with self._asking.models.stream(request) as events:
            async for event in events:
                if isinstance(event, Done):
                    if telling is not None:
                        await telling.end()
                    self.usage += event.usage
                    await self._listener.usage(self.usage)
                    return event
                if telling is not None:
                    await _tell(telling, event)
        raise ModelError("the model's stream ended before its answer did", retryable=True)


async def _tell(telling: Aloud, event: ModelEvent) -> None:
    match event:
        case TextDelta():
            await telling.piece("text", event.delta)
        case ThinkingDelta():
            await telling.piece("thought", event.delta)
        case _:
            pass


def _response(done: Done, name: str) -> ModelResponse:
    usage = done.usage
    return ModelResponse(
        parts=_parts(done.message),
        usage=RequestUsage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cached,
            cache_write_tokens=usage.cache_write,
        ),
        model_name=done.message.model or name,
        finish_reason=_REASONS[done.reason],
    )


def _parts(message: AssistantMessage) -> list[ModelResponsePart]:
    """What pydantic-ai acts on; all else of the answer is in the history."""
    parts: list[ModelResponsePart] = []
    for block in message.content:
        match block:
            case TextBlock():
                parts.append(TextPart(content=block.text))
            case ThinkingBlock():
                parts.append(ThinkingPart(content=block.text))
            case ToolCallBlock():
                parts.append(ToolCallPart(tool_name=block.name, args=block.arguments, tool_call_id=block.id))
            case _:
                pass
    if not message.tool_calls and not message.text.strip():
        parts.append(TextPart(content=_NOTHING))
    return parts
