"""A conversation as models take it: each call's answers directly behind it, one each, and none without a call. Pure.

No provider goes on from a conversation that breaks this rule, so one message too few would end a session for good.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from overnight.ports.model import AssistantMessage, Message, TextBlock, ToolCallBlock, ToolMessage

_LONGEST: Final = 64
"""Characters of an id that every provider takes back."""


def open_calls(messages: Sequence[Message]) -> list[ToolCallBlock]:
    """The calls of the latest answer that nothing has come of yet."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answered.add(message.call)
        elif isinstance(message, AssistantMessage):
            return [call for call in message.tool_calls if call.id not in answered]
        else:
            return []
    return []


def paired(messages: Iterable[Message], text: str) -> tuple[Message, ...]:
    """`messages` with every call answered once, right behind it: by `text` where no answer is known."""
    found: list[Message] = []
    expected: dict[str, ToolCallBlock] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            if expected.pop(message.call, None) is not None:
                found.append(message)
            continue
        found += unknown(expected.values(), text)
        expected = (
            {call.id: call for call in message.tool_calls} if isinstance(message, AssistantMessage) else {}
        )
        found.append(message)
    return (*found, *unknown(expected.values(), text))


def unknown(calls: Iterable[ToolCallBlock], text: str) -> Iterator[ToolMessage]:
    """The answer `text` to each call."""
    for call in calls:
        yield ToolMessage(call=call.id, name=call.name, content=(TextBlock(text=text),), is_error=True)


def told_apart(message: AssistantMessage, taken: Collection[str]) -> AssistantMessage:
    """`message` with an id of its own for each call: some services count from 0 in every answer, or leave it out."""
    used, content = set(taken), []
    for block in message.content:
        if isinstance(block, ToolCallBlock):
            if block.id in used or not 0 < len(block.id) <= _LONGEST:
                block = replace(block, id=f"call_{secrets.token_hex(12)}")  # noqa: PLW2901 - the same block
            used.add(block.id)
        content.append(block)
    return replace(message, content=tuple(content))
