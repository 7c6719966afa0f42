"""Anthropic Messages: `POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from overnight.testing.model_server import conversation as talk
from overnight.testing.model_server.conversation import Conversation, Reply, Speaker, fold, frame, text_of

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def read(body: Mapping[str, Any]) -> Conversation:
    """Reduce a request body."""
    return fold(
        (entry for message in body["messages"] for entry in _entries(message)),
        model=str(body.get("model", "")),
        stream=bool(body.get("stream", False)),
        tools=[str(tool.get("name", "")) for tool in body.get("tools") or []],
    )


def whole(reply: Reply) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    return {
        **_head(reply),
        "content": _blocks(reply),
        "stop_reason": _stop(reply),
        "usage": _usage(talk.OUTPUT_TOKENS),
    }


def frames(reply: Reply) -> list[bytes]:
    """The answer as server-sent events."""
    return [frame(event, event["type"]) for event in _events(reply)]


def error(status: int, message: str) -> dict[str, Any]:
    """The body of an error answer."""
    return {"type": "error", "error": {"type": _KINDS.get(status, "api_error"), "message": message}}


def _entries(message: Mapping[str, Any]) -> Iterator[tuple[Speaker, str]]:
    if message.get("role") != "user":
        yield ("model" if message.get("role") == "assistant" else "context"), ""
        return
    content = message.get("content")
    results = (
        [part for part in content if part.get("type") == "tool_result"] if isinstance(content, list) else []
    )
    # Text beside a result is a reminder that the client adds, not a new turn.
    for part in results:
        yield "result", text_of(part.get("content"))
    if not results:
        yield "user", text_of(content)


def _blocks(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.reasoning:
        blocks.append({"type": "thinking", "thinking": reply.reasoning, "signature": "c2lnbmVk"})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for call in reply.calls:
        name = call.id.replace("call_", "toolu_")
        blocks.append({"type": "tool_use", "id": name, "name": call.name, "input": dict(call.arguments)})
    return blocks


def _events(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {
        "type": "message_start",
        "message": {**_head(reply), "content": [], "stop_reason": None, "usage": _usage(1)},
    }
    for at, block in enumerate(_blocks(reply)):
        yield {"type": "content_block_start", "index": at, "content_block": _empty(block)}
        for delta in _deltas(reply, block):
            yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    stop = {"stop_reason": _stop(reply), "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": talk.OUTPUT_TOKENS}}
    yield {"type": "message_stop"}


def _empty(block: Mapping[str, Any]) -> dict[str, Any]:
    blanks: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    return {**block, **blanks[block["type"]]}


def _deltas(reply: Reply, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for piece in reply.pieces():
            yield {"type": "text_delta", "text": piece}
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}


def _head(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "stop_sequence": None,
    }


def _stop(reply: Reply) -> str:
    return "tool_use" if reply.calls else "end_turn"


def _usage(output: int) -> dict[str, Any]:
    return {
        # This dialect counts cached input beside `input_tokens`, not within it.
        "input_tokens": talk.INPUT_TOKENS - talk.CACHED_TOKENS,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": talk.CACHED_TOKENS,
        "output_tokens": output,
    }
