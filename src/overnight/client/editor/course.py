"""The course of a run as a person at an editor sees it: which turn has ended, and how. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from acp.schema import StopReason, Usage

_REASONS: Final[Mapping[str, StopReason]] = {
    "refusal": "refusal",
    "max_tokens": "max_tokens",
    "max_turn_requests": "max_turn_requests",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why work could not go on. `retryable`: another try may help."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a turn, or a run, came to its end; `trouble` when it did not do so in order."""

    stop: StopReason = "end_turn"
    usage: Usage | None = None
    trouble: Trouble | None = None


class Course:
    """Fed with the events of one run in their order, from its beginning or from any of them on."""

    def __init__(self) -> None:
        self.final: Ending | None = None
        """Set once the run has ended."""
        self._turn = 0
        self._ends: dict[int, Ending] = {}
        self._so_far = Ending()
        self._halted: Ending | None = None

    def ending(self, turn: int) -> Ending | None:
        """How that turn ended; None while it is under way, or may still be done again."""
        return self._ends.get(turn) or self.final or self._halted

    def feed(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        data = event.get("data") or {}
        match event["type"]:
            case "turn.started":
                self._begin(int(event.get("turn") or 0))
            case "usage.recorded":
                self._so_far = replace(self._so_far, usage=usage_of(data))
            case "turn.completed":
                self._so_far = replace(
                    self._so_far,
                    stop=_REASONS.get(str(data.get("stop_reason")), "end_turn"),
                    usage=usage_of(data["usage"]) if data.get("usage") else self._so_far.usage,
                )
            case "run.paused" if data.get("reason") == "backend_error":
                self._halted = Ending(trouble=_trouble(data))
            case "run.resumed":
                self._halted = None
            case "run.completed" | "run.failed" | "run.cancelled":
                self._end(str(event["type"]), data)
            case _:
                pass

    def _begin(self, turn: int) -> None:
        if turn != self._turn and self._turn:
            self._ends[self._turn] = self._so_far
        self._turn, self._so_far, self._halted = turn, Ending(), None

    def _end(self, kind: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "run.completed":
                limited = data.get("by") == "limit"
                self.final = replace(self._so_far, stop="max_turn_requests") if limited else self._so_far
            case "run.cancelled":
                self.final = replace(self._so_far, stop="cancelled")
            case _:
                self.final = Ending(trouble=_trouble(data))


def usage_of(data: Mapping[str, Any]) -> Usage | None:
    """Tokens in the protocol's words."""
    if data.get("total") is None:
        return None
    return Usage(
        total_tokens=int(data["total"]),
        input_tokens=int(data.get("input") or 0),
        output_tokens=int(data.get("output") or 0),
        thought_tokens=int(data.get("reasoning") or 0),
        cached_read_tokens=int(data.get("cached") or 0),
    )


def _trouble(data: Mapping[str, Any]) -> Trouble:
    return Trouble(
        code=str(data.get("code", "failed")),
        message=str(data.get("message") or "the run failed"),
        retryable=data.get("retryable") is True,
    )
