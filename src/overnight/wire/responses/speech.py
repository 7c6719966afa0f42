"""What is said, message or reasoning, as steps: its beginning, its text, its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from overnight.wire.responses import items
from overnight.wire.responses.position import Kind

Words = tuple[str, dict[str, Any]]
"""Type and members of one Responses event."""
PREFIX: Final[dict[Kind, str]] = {"message": "msg", "reasoning": "rs"}


@dataclass(frozen=True, slots=True)
class Speech:
    """One item that is said, by its id and its place among the items."""

    kind: Kind
    id: str
    index: int

    def added(self) -> Words:
        """It begins."""
        return self._item("response.output_item.added", None, "in_progress")

    def part(self) -> Words:
        """Its text begins."""
        return self._part("added", "")

    def delta(self, text: str) -> Words:
        """More of its text."""
        if self.kind == "message":
            return "response.output_text.delta", {**self._place, "delta": text, "logprobs": []}
        return "response.reasoning_summary_text.delta", {**self._place, "delta": text}

    def ends(self, text: str) -> list[Words]:
        """It is complete: three steps with the whole text, whatever the deltas were."""
        if self.kind == "message":
            told = "response.output_text.done", {**self._place, "text": text, "logprobs": []}
        else:
            told = "response.reasoning_summary_text.done", {**self._place, "text": text}
        return [
            told,
            self._part("done", text),
            self._item("response.output_item.done", text, "completed"),
        ]

    def breaks_off(self, text: str) -> Words:
        """It will never be complete."""
        return self._item("response.output_item.done", text, "incomplete")

    @property
    def _place(self) -> dict[str, Any]:
        within = "content_index" if self.kind == "message" else "summary_index"
        return {"item_id": self.id, "output_index": self.index, within: 0}

    def _part(self, what: str, text: str) -> Words:
        if self.kind == "message":
            return f"response.content_part.{what}", {**self._place, "part": items.output_text(text)}
        return f"response.reasoning_summary_part.{what}", {**self._place, "part": items.summary_text(text)}

    def _item(self, type: str, text: str | None, status: items.Status) -> Words:
        make = items.message if self.kind == "message" else items.reasoning
        return type, {"output_index": self.index, "item": make(self.id, text, status)}
