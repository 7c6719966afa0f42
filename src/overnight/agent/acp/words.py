"""What people say, and what a turn has used, between the protocol's words and ours. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from overnight.agent.acp.peer import INVALID_PARAMS, REFUSED, Refusal
from overnight.errors import OvernightError
from overnight.ports.model import ImageBlock, InputBlock, ModelUsage, TextBlock

AUTH_REQUIRED: Final = -32000


def blocks(prompt: object) -> tuple[InputBlock, ...]:
    """The content of a prompt. Raises Refusal for what a prompt cannot have."""
    if not isinstance(prompt, list) or not prompt:
        raise Refusal(INVALID_PARAMS, "prompt has to be a list of content blocks")
    return tuple(_blocks(prompt))


def usage(spent: ModelUsage) -> Mapping[str, int]:
    """Tokens of a turn, as the protocol counts them: cached input and thinking beside the rest."""
    fresh = spent.input - spent.cached - spent.cache_write
    return {
        "inputTokens": fresh,
        "outputTokens": spent.output - spent.reasoning,
        "cachedReadTokens": spent.cached,
        "cachedWriteTokens": spent.cache_write,
        "thoughtTokens": spent.reasoning,
        "totalTokens": spent.total,
    }


def code_of(error: OvernightError) -> int:
    """The number for an error: that of HTTP where a model's service has one."""
    return error.status if error.code in {"rate_limited", "provider_error", "model_timeout"} else REFUSED


def _blocks(prompt: list[Any]) -> Iterator[InputBlock]:
    for block in prompt:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "text" and isinstance(block.get("text"), str):
            yield TextBlock(text=block["text"])
        elif kind == "image" and isinstance(block.get("data"), str):
            yield ImageBlock(data=block["data"], media_type=str(block.get("mimeType") or "image/png"))
        elif kind == "resource_link":
            yield TextBlock(text=f"[{block.get('name') or 'resource'}]({block.get('uri')})")
        elif kind == "resource" and isinstance(block.get("resource"), Mapping):
            resource = block["resource"]
            yield TextBlock(text=f"{resource.get('uri')}:\n{resource.get('text', '(not text)')}")
        else:
            raise Refusal(INVALID_PARAMS, f"a prompt cannot have a block of type {kind!r}")
