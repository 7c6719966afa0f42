"""OpenAI Responses: `POST /v1/responses`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from overnight.testing.model_server import conversation as talk
from overnight.testing.model_server.conversation import Conversation, Reply, Speaker, fold, frame, text_of

_RESULTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output", "mcp_call_output")
_SPEAKERS: Mapping[str, Speaker] = {
    "user": "user",
    "assistant": "model",
    "system": "context",
    "developer": "context",
}


def read(body: Mapping[str, Any]) -> Conversation:
    """Reduce a request body."""
    tools: list[str] = []
    custom: list[str] = []
    for tool in _flat(body.get("tools") or []):
        (custom if tool.get("type") == "custom" else tools).append(
            str(tool.get("name", tool.get("type", "")))
        )
    return fold(
        _entries(body.get("input", "")),
        model=str(body.get("model", "")),
        stream=bool(body.get("stream", False)),
        tools=[*tools, *custom],
        custom_tools=custom,
    )


def whole(reply: Reply) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    return _response(reply, "completed", _items(reply))


def frames(reply: Reply) -> list[bytes]:
    """The answer as server-sent events."""
    return [frame({**event, "sequence_number": at}, event["type"]) for at, event in enumerate(_events(reply))]


def error(status: int, message: str) -> dict[str, Any]:
    """The body of an error answer."""
    return {"error": {"message": message, "type": "server_error", "code": str(status)}}


def _flat(tools: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for tool in tools:
        inner = tool.get("tools")
        if isinstance(inner, list):
            yield from _flat(inner)
        else:
            yield tool


def _entries(items: object) -> Iterator[tuple[Speaker, str]]:
    if isinstance(items, str):
        yield "user", items
        return
    for item in items if isinstance(items, list) else []:
        kind = item.get("type", "message")
        if kind in _RESULTS:
            yield "result", text_of(item.get("output"))
        elif kind == "message":
            yield _SPEAKERS.get(item.get("role", "user"), "context"), text_of(item.get("content"))
        else:
            yield "model", ""


def _items(reply: Reply) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.reasoning:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        sealed = f"sealed-{reply.id}"
        items.append(
            {"id": f"rs_{reply.id}", "type": "reasoning", "summary": summary, "encrypted_content": sealed}
        )
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        items.append(
            {
                "id": f"msg_{reply.id}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": content,
            }
        )
    for at, call in enumerate(reply.calls):
        item: dict[str, Any] = {
            "id": f"fc_{reply.id}_{at}",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
        }
        if call.custom:
            item |= {"type": "custom_tool_call", "input": str(call.arguments.get("input", ""))}
        else:
            item |= {"type": "function_call", "arguments": json.dumps(call.arguments)}
        items.append(item)
    return items


def _events(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response(reply, "in_progress", [])}
    items = _items(reply)
    for at, item in enumerate(items):
        yield {"type": "response.output_item.added", "output_index": at, "item": _begun(item)}
        yield from _deltas(reply, at, item)
        yield {"type": "response.output_item.done", "output_index": at, "item": item}
    yield {"type": "response.completed", "response": _response(reply, "completed", items)}


def _begun(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item before anything has been streamed into it."""
    empty: dict[str, Any] = {"content": [], "summary": [], "arguments": "", "input": ""}
    return {**item, "status": "in_progress", **{key: value for key, value in empty.items() if key in item}}


def _deltas(reply: Reply, at: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    where = {"item_id": item["id"], "output_index": at}
    if item["type"] == "message":
        yield from _message(reply, where)
    elif item["type"] == "reasoning":
        yield from _reasoning(reply, where)
    elif item["type"] == "function_call":
        arguments = str(item["arguments"])
        kind = "response.function_call_arguments"
        yield {"type": f"{kind}.delta", **where, "delta": arguments}
        yield {"type": f"{kind}.done", **where, "name": item["name"], "arguments": arguments}


def _message(reply: Reply, where: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {**where, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": part}
    for piece in reply.pieces():
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": reply.text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": {**part, "text": reply.text}}


def _reasoning(reply: Reply, where: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    part = {"type": "summary_text", "text": ""}
    place = {**where, "summary_index": 0}
    text = reply.reasoning
    yield {"type": "response.reasoning_summary_part.added", **place, "part": part}
    yield {"type": "response.reasoning_summary_text.delta", **place, "delta": text}
    yield {"type": "response.reasoning_summary_text.done", **place, "text": text}
    yield {"type": "response.reasoning_summary_part.done", **place, "part": {**part, "text": text}}


def _response(reply: Reply, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": 0,
        "status": status,
        "model": reply.model,
        "output": output,
        "usage": _usage() if status == "completed" else None,
    }


def _usage() -> dict[str, Any]:
    return {
        "input_tokens": talk.INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": talk.CACHED_TOKENS},
        "output_tokens": talk.OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": talk.REASONING_TOKENS},
        "total_tokens": talk.INPUT_TOKENS + talk.OUTPUT_TOKENS,
    }
