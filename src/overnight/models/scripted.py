"""A model that plays a script, in this process: for trying things out without a key, and for tests."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from overnight.errors import (
    AuthRequired,
    ContextOverflow,
    ModelError,
    ModelNotFound,
    OvernightError,
    RateLimited,
)
from overnight.models.endpoint import Endpoint
from overnight.models.script import Move, Play, Script, parse_script
from overnight.ports.model import (
    AssistantMessage,
    Context,
    Done,
    ModelEvent,
    ModelRequest,
    ModelUsage,
    OutputBlock,
    Started,
    StopReason,
    TextBlock,
    TextDelta,
    TextEnded,
    TextStarted,
    ThinkingBlock,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageKnown,
)

USAGE: Final = ModelUsage(input=1000, cached=200, output=50, reasoning=10, cost_usd=0.0)
"""What every answer is said to have used. Fixed, so that sums are exact."""
PIECE: Final = 4
"""Words in one streamed fragment of text."""


class ScriptedModel:
    """One script, played to every conversation by itself. Safe for many answers at once."""

    def __init__(self, endpoint: Endpoint, script: Script | None = None) -> None:
        self._endpoint = endpoint
        self._play = Play(script or _read(endpoint))

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        """As `Models.stream`."""
        place = _place(request.context)
        move = self._play.next_move(turn=place.turn, prompt=place.prompt, results=place.results)
        if (error := _refusal(move)) is not None:
            raise error
        async with aclosing(_said(move, f"{self._endpoint.name}-model")) as events:
            yield events


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a conversation stands: user turns from 1, and tool results since the last of them."""

    turn: int
    prompt: str
    results: int


def _place(context: Context) -> _Place:
    turn, results, before = 0, 0, ""
    prompt: list[str] = []
    for message in context.messages:
        if message.role == "user":
            if before != "user":
                turn, results, prompt = turn + 1, 0, []
            prompt += [block.text for block in message.content if block.type == "text"]
        elif message.role == "tool":
            results += 1
        before = message.role
    return _Place(turn=max(turn, 1), prompt="\n".join(prompt), results=results)


async def _said(move: Move, model: str) -> AsyncGenerator[ModelEvent]:
    yield Started(model=model)
    blocks = _blocks(move)
    for index, block in enumerate(blocks):
        for event in _streamed(index, block):
            # Also without a delay others get their turn, as with a real provider.
            await asyncio.sleep(move.delay_s)
            yield event
    if move.fault == "hang":
        await asyncio.Event().wait()
    if move.fault is not None:
        raise ModelError("the stream was cut off, as the script says")
    yield UsageKnown(usage=USAGE)
    reason: StopReason = "tool_use" if move.calls else "stop"
    yield Done(reason=reason, message=AssistantMessage(content=blocks, model=model), usage=USAGE)


def _blocks(move: Move) -> tuple[OutputBlock, ...]:
    blocks: list[OutputBlock] = []
    if move.reasoning:
        blocks.append(ThinkingBlock(text=move.reasoning, signature="scripted"))
    if move.text:
        blocks.append(TextBlock(text=move.text))
    for call in move.calls:
        arguments = json.dumps(call.arguments)
        blocks.append(ToolCallBlock(id=f"call_{secrets.token_hex(8)}", name=call.name, arguments=arguments))
    return tuple(blocks)


def _streamed(index: int, block: OutputBlock) -> Iterator[ModelEvent]:
    match block:
        case TextBlock():
            yield TextStarted(index=index)
            for piece in _pieces(block.text):
                yield TextDelta(index=index, delta=piece)
            yield TextEnded(index=index)
        case ThinkingBlock():
            yield ThinkingStarted(index=index)
            for piece in _pieces(block.text):
                yield ThinkingDelta(index=index, delta=piece)
            yield ThinkingEnded(index=index, signature=block.signature)
        case ToolCallBlock():
            yield ToolCallStarted(index=index, id=block.id, name=block.name)
            yield ToolCallDelta(index=index, delta=block.arguments)
            yield ToolCallEnded(index=index, id=block.id, name=block.name, arguments=block.arguments)
        case _:
            return


def _pieces(text: str) -> Iterator[str]:
    words = text.split(" ")
    for at in range(0, len(words), PIECE):
        yield " ".join(words[at : at + PIECE]) + (" " if at + PIECE < len(words) else "")


def _refusal(move: Move) -> OvernightError | None:
    """The error that stands for a status which the script wants answered."""
    words = move.message or f"the script says {move.fault}"
    match move.fault:
        case None | "invalid_json" | "disconnect" | "hang":
            return None
        case "429":
            return RateLimited(words, retry_after_s=move.retry_after_s)
        case "401" | "403":
            return AuthRequired(words)
        case "404":
            return ModelNotFound(words)
        case "400" if "context" in words:
            return ContextOverflow(words)
        case _:
            return ModelError(words, retryable=move.fault != "400", retry_after_s=move.retry_after_s)


def _read(endpoint: Endpoint) -> Script:
    if endpoint.script is None:
        return parse_script([])
    try:
        return parse_script(endpoint.script.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"the script of {endpoint.name} cannot be played: {error}", retryable=False
        ) from None
