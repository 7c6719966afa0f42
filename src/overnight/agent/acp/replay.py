"""A session's history as updates, for a client that opens it again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from overnight.ports.model import (
    AssistantMessage,
    Message,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolMessage,
)


def updates_of(messages: Sequence[Message]) -> Iterator[Mapping[str, object]]:
    """What happened, in order."""
    for message in messages:
        if isinstance(message, AssistantMessage):
            yield from _answer(message)
        elif isinstance(message, ToolMessage):
            texts = [block.text for block in message.content if isinstance(block, TextBlock)]
            yield {
                "sessionUpdate": "tool_call_update",
                "toolCallId": message.call,
                "status": "failed" if message.is_error else "completed",
                "content": [_said(text) for text in texts],
            }
        else:
            for block in message.content:
                if isinstance(block, TextBlock):
                    yield {"sessionUpdate": "user_message_chunk", "content": _text(block.text)}


def _answer(message: AssistantMessage) -> Iterator[Mapping[str, object]]:
    for block in message.content:
        match block:
            case TextBlock() if block.text:
                yield {"sessionUpdate": "agent_message_chunk", "content": _text(block.text)}
            case ThinkingBlock() if block.text:
                yield {"sessionUpdate": "agent_thought_chunk", "content": _text(block.text)}
            case ToolCallBlock():
                yield {
                    "sessionUpdate": "tool_call",
                    "toolCallId": block.id,
                    "title": block.name,
                    "kind": "other",
                    "status": "in_progress",
                    "rawInput": _arguments(block.arguments),
                }
            case _:
                pass


def _arguments(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return {"text": text}


def _said(text: str) -> Mapping[str, object]:
    return {"type": "content", "content": _text(text)}


def _text(text: str) -> Mapping[str, object]:
    return {"type": "text", "text": text}
