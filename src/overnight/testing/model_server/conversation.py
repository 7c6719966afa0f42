"""What the server needs to know of a request, whatever dialect it came in, and of the reply it will render."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from overnight.models.script import Move
from overnight.testing.model_server.tools import ResolvedCall, resolve

Speaker = Literal["user", "result", "model", "context"]
"""Who an entry of the history is from; `context` (system and developer messages) divides nothing."""

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS = 1000, 200, 50, 10
"""Counted for every call: input includes cached, output includes reasoning. Fixed, so that sums are exact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """A request, reduced: `turn` counts the user turns from 1, `results` the tool results since the last of them."""

    model: str
    stream: bool
    tools: frozenset[str]
    custom_tools: frozenset[str]
    turn: int
    prompt: str
    results: int
    last_results: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A move made ready to be rendered: ids given out, tool names mapped to those the client offered."""

    id: str
    model: str
    text: str
    reasoning: str
    calls: tuple[ResolvedCall, ...]

    def pieces(self) -> list[str]:
        """The text in streamed fragments of a few words."""
        words = self.text.split(" ")
        return [
            " ".join(words[at : at + 4]) + (" " if at + 4 < len(words) else "")
            for at in range(0, len(words), 4)
        ]


def fold(
    entries: Iterable[tuple[Speaker, str]],
    *,
    model: str,
    stream: bool,
    tools: Iterable[str],
    custom_tools: Iterable[str] = (),
) -> Conversation:
    """Count turns and results over a history.

    User messages next to each other are one turn: agents put context before the prompt, and a prompt that got no
    answer is sent again.
    """
    turn, before = 0, "context"
    prompt: list[str] = []
    results: list[str] = []
    for speaker, text in entries:
        if speaker == "context":
            continue
        if speaker == "user":
            if before != "user":
                turn, results, prompt = turn + 1, [], []
            prompt.append(text)
        elif speaker == "result":
            results.append(text)
        before = speaker
    return Conversation(
        model=model,
        stream=stream,
        tools=frozenset(tools),
        custom_tools=frozenset(custom_tools),
        turn=max(turn, 1),
        prompt="\n".join(prompt),
        results=len(results),
        last_results=tuple(results),
    )


def reply_to(conversation: Conversation, move: Move) -> Reply:
    """The reply that carries out `move` with the tools that this client offered."""
    return Reply(
        id=secrets.token_hex(8),
        model=conversation.model,
        text=move.text,
        reasoning=move.reasoning,
        calls=resolve(move, conversation.tools, conversation.custom_tools),
    )


def text_of(content: object) -> str:
    """The text of a content value: a string, or a list of parts that may carry `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text_of(part) for part in content)
    if isinstance(content, Mapping):
        return text_of(content.get("text", content.get("content", "")))
    return "" if content is None else json.dumps(content)


def frame(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()
