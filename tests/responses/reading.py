"""A client's side: what it makes of the steps it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ParsedResponse, ResponseStreamEvent
from pydantic import TypeAdapter

from overnight.wire.responses import EXTENSION, Step

SCHEMA: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Reader:
    """Collects the text of each item from its deltas, and notes what begins and ends."""

    def __init__(self) -> None:
        self.deltas: dict[str, str] = {}
        self.whole: dict[str, str] = {}
        self.began: list[str] = []
        self.ended: list[str] = []
        self.numbers: list[int] = []
        self.places: dict[str, int] = {}

    def read(self, steps: Sequence[Step]) -> Reader:
        """Take these steps, in order."""
        for step in steps:
            self.numbers.append(step["sequence_number"])
            if id := step.get("item_id") or step.get("item", {}).get("id"):
                assert self.places.setdefault(id, step["output_index"]) == step["output_index"], (
                    "it never moves"
                )
            match step["type"]:
                case "response.output_item.added":
                    self.began.append(step["item"]["id"])
                case "response.output_item.done":
                    self.ended.append(step["item"]["id"])
                case "response.output_text.delta" | "response.reasoning_summary_text.delta":
                    id = step["item_id"]
                    assert id in self.began
                    self.deltas[id] = self.deltas.get(id, "") + step["delta"]
                case "response.output_text.done" | "response.reasoning_summary_text.done":
                    self.whole[step["item_id"]] = step["text"]
                case _:
                    pass
        return self


def judged(steps: Sequence[Step]) -> ParsedResponse[Any] | None:
    """What the official accumulator makes of a stream from its beginning; it raises for one that contradicts itself.

    Every step must be valid by the official types, too.
    """
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for step in steps:
        if step["type"] != EXTENSION:
            SCHEMA.validate_python(_lenient(step))
        state.handle_event(cast("ResponseStreamEvent", construct_type(type_=ResponseStreamEvent, value=step)))
    return state._completed_response


def _lenient(step: Step) -> Step:
    """The last step of `logs.told` leaves its output out, as servers may."""
    if step["type"] == "response.completed" and step["response"]["output"] is None:
        return {**step, "response": {**step["response"], "output": []}}
    return step
