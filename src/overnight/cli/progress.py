"""What a run's events add up to so far: the figures of the live view. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATES = {
    "run.queued": "queued",
    "run.started": "running",
    "run.pausing": "pausing",
    "run.paused": "paused",
    "run.resumed": "running",
    "run.waiting": "waiting",
    "run.blocked": "blocked",
    "run.requeued": "queued",
    "run.recovered": "running",
    "run.cancelling": "cancelling",
    "run.cancelled": "cancelled",
    "run.completed": "completed",
    "run.failed": "failed",
}


@dataclass(slots=True)
class Progress:
    """Fed with every event of a run, from the first one on or from any later one."""

    state: str = "queued"
    turn: int = 0
    turns: int | None = None
    """The limit of turns, where there is one."""
    now: str = ""
    passed: int | None = None
    failed: int | None = None
    usage: dict[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)
    """The last word on each attempt's usage: later ones replace earlier ones."""
    files: set[str] = field(default_factory=set)

    def feed(self, event: Mapping[str, Any]) -> None:
        """Take in one event or delta."""
        kind, data = str(event["type"]), event.get("data") or {}
        self.state = STATES.get(kind, self.state)
        match kind:
            case "turn.started":
                self.turn = event.get("turn") or self.turn
                self.now = "thinking"
            case "command.started":
                self.now = f"$ {data.get('command', '')}"
            case "tool.started":
                self.now = str(data.get("name", ""))
            case "command.completed" | "tool.completed" | "message.completed":
                self.now = "thinking"
            case "turn.completed" | "turn.failed" | "turn.abandoned":
                self.now = ""
            case "file.written" | "file.deleted":
                self.files.add(str(data.get("path", "")))
            case "tests.completed":
                self.passed, self.failed = data.get("passed"), data.get("failed")
            case "usage.recorded":
                self.usage[event.get("turn") or 0, event.get("attempt") or 1] = data
            case "message.delta" | "reasoning.delta":
                self.now = str(data.get("text", "")).strip() or self.now
            case _:
                pass

    @property
    def tokens(self) -> int:
        """Input and output together, over all turns."""
        return sum(int(usage.get("total") or 0) for usage in self.usage.values())

    @property
    def cost_usd(self) -> float | None:
        """What it cost, where a backend says so."""
        costs = [
            float(usage["cost_usd"]) for usage in self.usage.values() if usage.get("cost_usd") is not None
        ]
        return sum(costs) if costs else None
