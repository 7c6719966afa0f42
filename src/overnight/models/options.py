"""Our options and tools as pydantic-ai's settings. What a kind of model cannot do is left out rather than refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from overnight.models.endpoint import EndpointKind
from overnight.ports.model import ModelOptions, NamedTool, Tool

PATIENCE_S: Final = 300.0
"""How long a provider may say nothing before its connection counts as dead."""

_PLAIN: Final = ("temperature", "top_p", "max_tokens", "seed", "parallel_tool_calls", "service_tier")
_RETENTION: Final = {"none": False, "short": "5m", "long": "1h"}


def settings(options: ModelOptions, kind: EndpointKind, model: Model[Any]) -> ModelSettings:
    """What to send besides the conversation. Nothing is retried beneath us: whoever asks decides that."""
    found: dict[str, object] = {"max_retries": 0, "timeout": options.timeout_s or PATIENCE_S}
    found |= {name: value for name in _PLAIN if (value := getattr(options, name)) is not None}
    if options.stop:
        found["stop_sequences"] = list(options.stop)
    if options.thinking is not None:
        found["thinking"] = False if options.thinking == "off" else options.thinking
    if options.cache is not None:
        found["cache"] = _RETENTION[options.cache]
    match options.tool_choice:
        case None:
            pass
        case NamedTool(name=name):
            found["tool_choice"] = [name]
        case word:
            found["tool_choice"] = word
    found |= _own(options, kind)
    return cast("ModelSettings", {key: value for key, value in found.items() if key not in _ignored(model)})


def parameters(tools: Sequence[Tool]) -> ModelRequestParameters:
    """The tools that the model may call."""
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(
                name=tool.name,
                description=tool.description,
                parameters_json_schema=dict(tool.parameters),
                # Without a word of ours no schema is rewritten: optional members stay optional.
                strict=bool(tool.strict),
            )
            for tool in tools
        ]
    )


def _own(options: ModelOptions, kind: EndpointKind) -> dict[str, object]:
    """What one kind of provider alone knows."""
    found: dict[str, object] = {}
    if kind == "openai":
        # The conversation is kept by us, not there; encrypted reasoning comes with the answers.
        found["openai_store"] = False
    if kind in {"openai", "openai-chat"} and options.conversation:
        found["openai_prompt_cache_key"] = options.conversation
    return found


def _ignored(model: Model[Any]) -> frozenset[str]:
    return frozenset(model.unsupported_settings)
