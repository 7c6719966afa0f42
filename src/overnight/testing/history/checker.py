"""The checker: judges a history against the promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from overnight.testing.history.checks import (
    accepted,
    decisions,
    endings,
    executors,
    leftovers,
    messages,
    recording,
    sequences,
    storage,
    summaries,
)
from overnight.testing.history.entries import Connected, Decided, Fault, Posted, Received, Submitted
from overnight.testing.history.model import History, Violation

CHECKS: Final[tuple[Callable[[History], Iterator[Violation]], ...]] = (
    recording.check,
    accepted.check,
    messages.check,
    sequences.check,
    summaries.check,
    executors.check,
    decisions.check,
    leftovers.check,
    endings.check,
    storage.check,
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the checker found, and how much it looked at."""

    violations: tuple[Violation, ...]
    figures: dict[str, int]

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def __str__(self) -> str:
        counted = ", ".join(f"{number} {name}" for name, number in self.figures.items())
        if self.good:
            return f"every promise was kept ({counted})"
        listed = "\n".join(f"  {violation}" for violation in self.violations)
        return f"{len(self.violations)} times a promise was broken ({counted}):\n{listed}"


def check(history: History) -> Verdict:
    """Judge a history. One that was not closed is judged as far as it goes, and named as broken off."""
    found = tuple(violation for one in CHECKS for violation in one(history))
    return Verdict(violations=found, figures=figures(history))


def figures(history: History) -> dict[str, int]:
    """How much there was."""
    outcomes = Counter(entry.outcome for entry in history.of(Submitted))
    events = [event for log in history.logs.values() for event in log.events]
    recovered = [event["data"] for event in events if event["type"] == "run.recovered"]
    adopted = sum(1 for data in recovered if isinstance(data, dict) and data.get("adopted"))
    return {
        "runs": len(history.logs),
        "accepted": outcomes["accepted"],
        "refused": outcomes["refused"],
        "unknown": outcomes["unknown"],
        "events": len(events),
        "readers": len({(entry.reader, entry.run_id) for entry in history.of(Connected)}),
        "received": sum(1 for _ in history.of(Received)),
        "messages": len({entry.key for entry in history.of(Posted) if entry.outcome == "accepted"}),
        "decisions": len({entry.approval_id for entry in history.of(Decided) if entry.outcome == "accepted"}),
        "agents": len(history.agents),
        "adoptions": adopted,
        "other takeovers": len(recovered) - adopted,
        "faults": sum(1 for entry in history.of(Fault) if entry.phase == "began"),
    }
