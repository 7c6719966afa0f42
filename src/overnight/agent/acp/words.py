"""What people say, and what a turn has used, between the protocol's words and ours. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, Final

from overnight.agent.acp.peer import FAILED, INVALID_PARAMS, Refusal
from overnight.errors import OvernightError
from overnight.ports.model import ImageBlock, InputBlock, ModelUsage, TextBlock

AUTH_REQUIRED: Final = -32000
PICTURES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")


def blocks(prompt: object) -> tuple[InputBlock, ...]:
    """The content of a prompt. Raises Refusal for what a prompt cannot have."""
    if not isinstance(prompt, list) or not prompt:
        raise Refusal(INVALID_PARAMS, "prompt has to be a list of content blocks")
    found = tuple(_blocks(prompt))
    if not found:
        raise Refusal(INVALID_PARAMS, "the prompt says nothing")
    return found


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
    if error.code == "auth_required":
        return AUTH_REQUIRED
    return error.status if error.code in {"rate_limited", "provider_error", "model_timeout"} else FAILED


def told(error: OvernightError) -> Mapping[str, object]:
    """What stands beside the number. A client that is Overnight itself reads code and `retryable` there."""
    ours = {"code": error.code, "retryable": bool(getattr(error, "retryable", False))}
    return {"code": error.code, "mend": error.mend, "message": error.detail, "overnight": ours}


def _blocks(prompt: list[Any]) -> Iterator[InputBlock]:
    for block in prompt:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "text" and isinstance(block.get("text"), str):
            if block["text"].strip():
                # Some services refuse a blank block, and with it the whole conversation from then on.
                yield TextBlock(text=block["text"])
        elif kind == "image":
            yield _picture(block)
        elif kind == "resource_link":
            yield TextBlock(text=f"[{block.get('name') or 'resource'}]({block.get('uri')})")
        elif kind == "resource" and isinstance(block.get("resource"), Mapping):
            resource = block["resource"]
            yield TextBlock(text=f"{resource.get('uri')}:\n{resource.get('text', '(not text)')}")
        else:
            raise Refusal(INVALID_PARAMS, f"a prompt cannot have a block of type {kind!r}")


def _picture(block: Mapping[str, Any]) -> ImageBlock:
    """What no model takes would be refused with every later turn, too: it never gets into a history."""
    data, kind = block.get("data"), str(block.get("mimeType") or "image/png")
    try:
        base64.b64decode(data if isinstance(data, str) else "!", validate=True)
    except (ValueError, binascii.Error):
        raise Refusal(INVALID_PARAMS, "the data of an image has to be base64") from None
    if kind not in PICTURES or not data:
        raise Refusal(INVALID_PARAMS, f"an image has to be one of: {', '.join(PICTURES)}")
    return ImageBlock(data=str(data), media_type=kind)
