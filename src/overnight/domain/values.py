"""Small values that occur in runs, turns, events and updates alike. All frozen; all JSON by `to_json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and money of one turn. `input` includes `cached`, `output` includes `reasoning`."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    cost_usd: float | None = None

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input + self.output

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return Usage(
            input=self.input + other.input,
            cached=self.cached + other.cached,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            cost_usd=round(sum(costs), 9) if costs else None,
        )

    def tokens(self) -> dict[str, int]:
        """The wire's `tokens` object."""
        return {
            "input": self.input,
            "cached": self.cached,
            "output": self.output,
            "reasoning": self.reasoning,
            "total": self.total,
        }

    def to_json(self) -> dict[str, object]:
        """The wire's usage object: tokens and `cost_usd`."""
        return {**self.tokens(), "cost_usd": self.cost_usd}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStats:
    """What a turn or run did to the workspace: files changed, lines added and removed."""

    changed: int = 0
    added: int = 0
    removed: int = 0

    def to_json(self) -> dict[str, int]:
        """The wire's `files` object."""
        return {"changed": self.changed, "added": self.added, "removed": self.removed}


@dataclass(frozen=True, slots=True, kw_only=True)
class TestStats:
    """The last known result of the tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def to_json(self) -> dict[str, int]:
        """The wire's `tests` object."""
        return {"passed": self.passed, "failed": self.failed, "skipped": self.skipped}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Totals of a run."""

    turns: int = 0
    usage: Usage = field(default_factory=Usage)
    files: FileStats = field(default_factory=FileStats)
    tests: TestStats | None = None
    wall_ms: int = 0
    """Working time so far, in milliseconds; clocks stop while the run waits or is paused."""

    def to_json(self) -> dict[str, object]:
        """The wire's `stats` object."""
        return {
            "turns": self.turns,
            "tokens": self.usage.tokens(),
            "cost_usd": self.usage.cost_usd,
            "files": self.files.to_json(),
            "tests": self.tests.to_json() if self.tests else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something failed. `retryable` is true only when trying again may really help."""

    code: str
    message: str
    retryable: bool = False
    retry_at: int | None = None
    """When a rate limit resets, wall milliseconds, where the backend said so."""

    def to_json(self) -> dict[str, object]:
        """The wire's `error` object."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


CompletedBy = Literal["pattern", "stop_file", "backend", "idle", "limit", "one_turn", "decision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """By what the end was recognised."""

    by: CompletedBy
    line: str | None = None

    def to_json(self) -> dict[str, object]:
        """The data of `run.completed`."""
        return {"by": self.by, "line": self.line}


WaitingKind = Literal["approval", "question", "budget", "session", "workspace", "backend", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFor:
    """What a run waits for."""

    kind: WaitingKind
    approval_id: str | None = None
    detail: str = ""

    def to_json(self) -> dict[str, object]:
        """The wire's `waiting_for` object."""
        found: dict[str, object] = {"kind": self.kind}
        if self.approval_id:
            found["approval_id"] = self.approval_id
        if self.detail:
            found["detail"] = self.detail
        return found


PauseReason = Literal["manual", "budget", "backend_error", "shutdown"]
CancelReason = Literal["manual", "system", "deadline", "parent"]
Step = Literal["interrupt", "sigterm", "sigkill", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """How a run was stopped. `survivors` is None when nobody could look (keeper and host gone)."""

    reason: CancelReason
    steps: tuple[str, ...] = ()
    survivors: int | None = None

    def to_json(self) -> dict[str, object]:
        """The wire's `cancellation` object and the data of `run.cancelled`."""
        return {"reason": self.reason, "steps": list(self.steps), "survivors": self.survivors}


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What the agent is doing at this moment, for lists and progress displays."""

    item: str
    text: str
    since: int
    """Wall milliseconds."""
