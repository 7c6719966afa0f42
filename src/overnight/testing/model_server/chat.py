"""OpenAI Chat Completions: `POST /v1/chat/completions`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from overnight.testing.model_server import conversation as talk
from overnight.testing.model_server.conversation import Conversation, Reply, Speaker, fold, frame, text_of

_SPEAKERS: Mapping[str, Speaker] = {
    "user": "user", "assistant": "model", "tool": "result", "function": "result",
}  # fmt: skip


def read(body: Mapping[str, Any]) -> Conversation:
    """Reduce a request body."""
    return fold(
        (
            (_SPEAKERS.get(item.get("role", ""), "context"), text_of(item.get("content")))
            for item in body["messages"]
        ),
        model=str(body.get("model", "")),
        stream=bool(body.get("stream", False)),
        tools=[str(tool.get("function", tool).get("name", "")) for tool in body.get("tools") or []],
    )


def whole(reply: Reply) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        message["tool_calls"] = _calls(reply)
    choice = {"index": 0, "message": message, "finish_reason": _stop(reply)}
    return {**_head(reply, "chat.completion"), "choices": [choice], "usage": _usage()}


def frames(reply: Reply) -> list[bytes]:
    """The answer as server-sent events."""
    return [*map(frame, _chunks(reply)), b"data: [DONE]\n\n"]


def error(status: int, message: str) -> dict[str, Any]:
    """The body of an error answer."""
    return {"error": {"message": message, "type": "server_error", "code": status}}


def _chunks(reply: Reply) -> Iterator[dict[str, Any]]:
    head = _head(reply, "chat.completion.chunk")

    def chunk(delta: Mapping[str, Any], stop: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": stop}]}

    yield chunk({"role": "assistant", "content": ""})
    if reply.reasoning:
        yield chunk({"reasoning_content": reply.reasoning})
    if reply.text:
        for piece in reply.pieces():
            yield chunk({"content": piece})
    for at, call in enumerate(_calls(reply)):
        yield chunk({"tool_calls": [{"index": at, **call}]})
    yield chunk({}, _stop(reply))
    yield {**head, "choices": [], "usage": _usage()}


def _calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for call in reply.calls
    ]


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{reply.id}", "object": kind, "created": 0, "model": reply.model}


def _stop(reply: Reply) -> str:
    return "tool_calls" if reply.calls else "stop"


def _usage() -> dict[str, Any]:
    return {
        "prompt_tokens": talk.INPUT_TOKENS,
        "completion_tokens": talk.OUTPUT_TOKENS,
        "total_tokens": talk.INPUT_TOKENS + talk.OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": talk.CACHED_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": talk.REASONING_TOKENS},
    }
