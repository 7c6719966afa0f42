"""Puts an answer together again from its events, as far as they have come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from overnight.ports.model import (
    AssistantMessage,
    Done,
    ModelEvent,
    ModelUsage,
    OutputBlock,
    Started,
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


@dataclass(slots=True)
class _Growing:
    """A block and what has been written into it."""

    block: TextBlock | ThinkingBlock | ToolCallBlock
    pieces: list[str]

    def whole(self) -> OutputBlock:
        text = "".join(self.pieces)
        if isinstance(self.block, ToolCallBlock):
            return replace(self.block, arguments=text)
        return replace(self.block, text=text)


class Reconstruction:
    """One answer. Deltas of blocks that have not begun are ignored; the message in `Done` counts over all of them."""

    def __init__(self) -> None:
        self.model = ""
        self.usage: ModelUsage | None = None
        self.done: Done | None = None
        self._blocks: dict[int, _Growing] = {}

    def message(self) -> AssistantMessage:
        """The answer so far, its blocks in the order of their indexes."""
        if self.done is not None:
            return self.done.message
        blocks = tuple(self._blocks[index].whole() for index in sorted(self._blocks))
        return AssistantMessage(content=blocks, model=self.model)

    def take(self, event: ModelEvent) -> None:
        """The next event."""
        match event:
            case Started():
                self.model = event.model
            case TextStarted() | ThinkingStarted() | ToolCallStarted():
                self._blocks[event.index] = _Growing(_begun(event), [])
            case TextDelta() | ThinkingDelta() | ToolCallDelta():
                self._grow(event.index, event.delta)
            case ThinkingEnded():
                self._sign(event)
            case ToolCallEnded():
                self._conclude(event)
            case UsageKnown():
                self.usage = event.usage
            case Done():
                self.done, self.usage = event, event.usage
            case TextEnded():
                pass
            case _ as never:
                assert_never(never)

    def _grow(self, index: int, delta: str) -> None:
        growing = self._blocks.get(index)
        if growing is not None:
            growing.pieces.append(delta)

    def _sign(self, event: ThinkingEnded) -> None:
        growing = self._blocks.get(event.index)
        if growing is not None and isinstance(growing.block, ThinkingBlock):
            growing.block = replace(growing.block, signature=event.signature)

    def _conclude(self, event: ToolCallEnded) -> None:
        growing = self._blocks.get(event.index)
        if growing is not None and isinstance(growing.block, ToolCallBlock):
            growing.block = replace(growing.block, id=event.id, name=event.name)
            growing.pieces = [event.arguments]


def _begun(
    event: TextStarted | ThinkingStarted | ToolCallStarted,
) -> TextBlock | ThinkingBlock | ToolCallBlock:
    match event:
        case TextStarted():
            return TextBlock(text="")
        case ThinkingStarted():
            return ThinkingBlock()
        case ToolCallStarted():
            return ToolCallBlock(id=event.id, name=event.name, arguments="")
