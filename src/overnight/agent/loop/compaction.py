"""A conversation that has become too long for its model is made shorter: its beginning is told in a summary. Pure.

Where to cut: never between a call and its answer, and never so late that nothing of the latest work is left word for
word. What the person asked for first, and the summary, stand at the beginning from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from overnight.ports.model import (
    AssistantMessage,
    Context,
    InputBlock,
    Message,
    TextBlock,
    ToolMessage,
    UserMessage,
)

KEPT: Final = 6
"""Messages at the end that stay as they are, as far as the rule about calls allows."""
SHOWN: Final = 2_000
"""Characters of one message that the summary is made from."""
MOST: Final = 60_000
"""Characters in all that the summary is made from."""
ORDER: Final = (
    "You write the hand-over note of a coding agent whose conversation has become too long. From the record below, say "
    "for the agent itself: the objective and every constraint that the person gave; what has been done, with paths and "
    "commands; what was found out; decisions and their reasons; what is open, and the next step. Leave out greetings "
    "and everything that is settled and of no further use. Plain text, at most 600 words."
)
HEADING: Final = "Summary of the conversation so far (its beginning was too long to be kept):"

_LEFT_OUT: Final = "\n[… the rest was left out: the conversation had become too long]"


def cut(messages: Sequence[Message]) -> int:
    """How many messages from the beginning are to be summarised; 0 when it cannot be made shorter this way."""
    at = max(len(messages) - KEPT, 0)
    while at < len(messages) and isinstance(messages[at], ToolMessage):
        at += 1
    if at >= len(messages):
        at = next((i for i in range(len(messages) - 1, 0, -1) if not isinstance(messages[i], ToolMessage)), 0)
    return at if at > 1 else 0


def shortened(messages: Sequence[Message], at: int, summary: str) -> tuple[Message, ...]:
    """The conversation with everything before `at` told by the summary."""
    first = next((message for message in messages[:at] if isinstance(message, UserMessage)), None)
    asked = [block for block in (first.content if first else ()) if not _is_summary(block)]
    told = TextBlock(text=f"{HEADING}\n\n{summary}")
    return (UserMessage(content=(*asked, told)), *messages[at:])


def clipped(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation with only the beginnings of long answers of tools: for where nothing else could go."""
    return tuple(_clipped(message) if isinstance(message, ToolMessage) else message for message in messages)


def question(messages: Sequence[Message]) -> Context:
    """What a model is asked for the summary."""
    record = "\n\n".join(_told(messages))
    if len(record) > MOST:
        record = f"{record[: MOST // 2]}\n\n[… left out …]\n\n{record[-MOST // 2 :]}"
    return Context(system=ORDER, messages=(UserMessage(content=(TextBlock(text=record),)),))


def extract(messages: Sequence[Message]) -> str:
    """A summary without a model: what was asked, and the beginnings of what was said and done."""
    lines = [line for told in _told(messages) for line in (told.splitlines()[0][:200],) if line]
    return "\n".join(lines[:20] + (["…", *lines[-20:]] if len(lines) > 40 else lines[20:]))


def _told(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        match message:
            case UserMessage():
                texts = [block for block in message.content if isinstance(block, TextBlock)]
                yield f"Person: {' '.join(b.text for b in texts if not _is_summary(b))[:SHOWN]}"
                # An earlier summary is all that is left of what it tells.
                yield from (block.text for block in texts if _is_summary(block))
            case AssistantMessage():
                if message.text:
                    yield f"Agent: {message.text[:SHOWN]}"
                for call in message.tool_calls:
                    yield f"Agent calls {call.name}: {call.arguments[:SHOWN]}"
            case ToolMessage():
                words = " ".join(block.text for block in message.content if isinstance(block, TextBlock))
                yield f"{message.name} answers: {words[:SHOWN]}"


def _is_summary(block: InputBlock) -> bool:
    return isinstance(block, TextBlock) and block.text.startswith(HEADING)


def _clipped(message: ToolMessage) -> ToolMessage:
    return replace(message, content=tuple(map(_beginning, message.content)))


def _beginning(block: InputBlock) -> InputBlock:
    if not isinstance(block, TextBlock):
        return TextBlock(text="[a picture was left out]")
    if len(block.text) <= SHOWN + len(_LEFT_OUT):
        return block
    return replace(block, text=block.text[:SHOWN] + _LEFT_OUT)
