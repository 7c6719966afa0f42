"""Gemini: `POST /v1beta/models/MODEL:generateContent` and `:streamGenerateContent`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from overnight.testing.model_server import conversation as talk
from overnight.testing.model_server.conversation import Conversation, Reply, Speaker, fold, frame, text_of

_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}


def read(body: Mapping[str, Any]) -> Conversation:
    """Reduce a request body; model and streaming are in the path, so the server fills them in."""
    declared = [tool.get("functionDeclarations") or [] for tool in body.get("tools") or []]
    return fold(
        (entry for content in body["contents"] for entry in _entries(content)),
        model=str(body.get("model", "")),
        stream=bool(body.get("stream", False)),
        tools=[str(function.get("name", "")) for functions in declared for function in functions],
    )


def whole(reply: Reply) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    return _answer(reply, _parts(reply), "STOP")


def frames(reply: Reply) -> list[bytes]:
    """The answer as server-sent events."""
    parts: list[dict[str, Any]] = [{"text": piece} for piece in reply.pieces()] if reply.text else []
    others = [part for part in _parts(reply) if part.get("thought") or "functionCall" in part]
    thoughts = [part for part in others if part.get("thought")]
    calls = [part for part in others if "functionCall" in part]
    chunks = [_answer(reply, [part], None) for part in [*thoughts, *parts, *calls]]
    return [*map(frame, chunks), frame(_answer(reply, [{"text": ""}], "STOP"))]


def error(status: int, message: str) -> dict[str, Any]:
    """The body of an error answer."""
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[Speaker, str]]:
    parts = content.get("parts") or []
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    if content.get("role") == "model":
        yield "model", ""
    elif results:
        for result in results:
            yield "result", json.dumps(result.get("response"))
    else:
        yield "user", text_of(parts)


def _parts(reply: Reply) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if reply.reasoning:
        parts.append({"text": reply.reasoning, "thought": True})
    if reply.text:
        parts.append({"text": reply.text})
    parts += [{"functionCall": {"id": c.id, "name": c.name, "args": dict(c.arguments)}} for c in reply.calls]
    return parts


def _answer(reply: Reply, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    answer: dict[str, Any] = {"responseId": reply.id, "modelVersion": reply.model, "candidates": [candidate]}
    if finish is not None:
        candidate["finishReason"] = finish
        answer["usageMetadata"] = _usage()
    return answer


def _usage() -> dict[str, Any]:
    return {
        "promptTokenCount": talk.INPUT_TOKENS,
        "cachedContentTokenCount": talk.CACHED_TOKENS,
        "candidatesTokenCount": talk.OUTPUT_TOKENS - talk.REASONING_TOKENS,
        "thoughtsTokenCount": talk.REASONING_TOKENS,
        "totalTokenCount": talk.INPUT_TOKENS + talk.OUTPUT_TOKENS,
    }
