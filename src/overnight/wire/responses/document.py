"""The response object: a run as one response."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.values import Failure, Usage

MOST_OUTPUT: Final = 4 * 1024 * 1024
"""Bytes of items in one response; the oldest are left out above it, and `metadata` says how many."""
MOST_LABELS: Final = 8
"""The schema allows sixteen pairs in `metadata`; half are for labels."""
FINAL_STEP: Final[Mapping[State, str]] = {
    State.COMPLETED: "response.completed",
    State.FAILED: "response.failed",
    State.CANCELLED: "response.incomplete",
}
"""The last event of a stream. The schema has none for a cancelled response, but a status that says so."""
_STATUS: Final[Mapping[State, str]] = {
    State.QUEUED: "queued",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What never changes about a run's response."""

    id: str
    created_at: float
    """Seconds since 1970."""
    model: str
    session_id: str
    effort: str | None
    labels: Mapping[str, str]


def head_of(run: Run) -> Head:
    """The head of the run's response. `model` is what was asked for: backend and model, or the backend alone."""
    spec = run.spec
    model = spec.backend_name if spec.model is None else f"{spec.backend_name}/{spec.model}"
    return Head(
        id=run.id, created_at=run.created_at / 1000, model=model, session_id=run.session_id, effort=spec.effort,
        labels=dict(list(spec.labels.items())[:MOST_LABELS]),
    )  # fmt: skip


class Shelf:
    """Collects finished items, the newest of them up to a bound."""

    def __init__(self, most: int = MOST_OUTPUT) -> None:
        self._most = most
        self._items: deque[bytes] = deque()
        self._bytes = 0
        self.left_out = 0

    def take(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """Keep the items that these steps finish."""
        for step in steps:
            if step["type"] == "response.output_item.done":
                self._items.append(orjson.dumps(step["item"]))
                self._bytes += len(self._items[-1])
        while self._bytes > self._most:
            self._bytes -= len(self._items.popleft())
            self.left_out += 1

    @property
    def items(self) -> list[orjson.Fragment]:
        """The items in order, as JSON."""
        return [orjson.Fragment(item) for item in self._items]


def response(run: Run, shelf: Shelf) -> dict[str, object]:
    """The whole response of a run as it stands."""
    metadata = {"overnight_state": run.state.value}
    if run.waiting_for is not None:
        metadata["overnight_waiting_for"] = run.waiting_for.kind
    if run.error is not None:
        metadata["overnight_error"] = run.error.code[:500]
    if shelf.left_out:
        metadata["overnight_left_out"] = str(shelf.left_out)
    done = run.state is State.COMPLETED and run.ended_at is not None
    return _document(
        head_of(run),
        status=_STATUS.get(run.state, "in_progress"),
        output=shelf.items,
        usage=_usage(run.stats.usage) if run.final else None,
        error=_error(run.error) if run.error and run.state is State.FAILED else None,
        completed_at=(run.ended_at or 0) / 1000 if done else None,
        metadata=metadata,
    )


def early(head: Head, status: str) -> dict[str, object]:
    """The response before there is anything in it."""
    return _document(head, status=status, output=[])


def _document(
    head: Head, *, status: str, output: Sequence[object], usage: object = None, error: object = None,
    completed_at: float | None = None, metadata: Mapping[str, str] | None = None,
) -> dict[str, object]:  # fmt: skip
    return {
        "id": head.id, "object": "response", "created_at": head.created_at, "status": status, "background": True,
        "completed_at": completed_at, "error": error, "incomplete_details": None, "instructions": None,
        "max_output_tokens": None, "max_tool_calls": None, "model": head.model, "output": output,
        "conversation": {"id": head.session_id}, "parallel_tool_calls": True, "previous_response_id": None,
        "reasoning": {"effort": head.effort, "summary": None}, "store": True, "temperature": None,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None,
        "truncation": "disabled", "usage": usage, "user": None, "metadata": {**head.labels, **(metadata or {})},
    }  # fmt: skip


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def _error(failure: Failure) -> dict[str, object]:
    """The schema has a closed list of codes: ours is at the head of the message, and in `metadata`."""
    code = "rate_limit_exceeded" if failure.code in _RATE_LIMITS else "server_error"
    return {"code": code, "message": f"{failure.code}: {failure.message}"}


_RATE_LIMITS: Final = frozenset({"rate_limited", "usage_limit"})
