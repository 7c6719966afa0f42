"""What a run has used up of its limits. Budgets are tokens, money and working time; turns end a run by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from overnight.domain.spec import LimitsSpec
from overnight.domain.values import Stats

WARN_AT: Final = 0.8
"""The part of a budget from which it counts as nearly spent."""

Budget = Literal["tokens", "cost_usd", "wall_clock_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """One budget and how much of it is used."""

    budget: Budget
    used: float
    limit: float

    @property
    def part(self) -> float:
        """1.0 and more: spent."""
        return self.used / self.limit

    def to_json(self) -> dict[str, object]:
        """The data of `budget.warned` and `budget.spent`."""
        return {"budget": self.budget, "used": self.used, "limit": self.limit}

    def __str__(self) -> str:
        used = f"{self.used:.4f}".rstrip("0").rstrip(".")
        return f"{used} of {self.limit:g} {_UNITS[self.budget]}"


def spending(limits: LimitsSpec, stats: Stats) -> tuple[Spending, ...]:
    """Every budget that has a limit."""
    pairs: tuple[tuple[Budget, float, float | None], ...] = (
        ("tokens", stats.usage.total, limits.tokens),
        ("cost_usd", stats.usage.cost_usd or 0.0, limits.cost_usd),
        ("wall_clock_s", stats.wall_ms / 1000, limits.wall_clock_s),
    )
    return tuple(
        Spending(budget=name, used=used, limit=limit) for name, used, limit in pairs if limit is not None
    )


def spent(limits: LimitsSpec, stats: Stats) -> Spending | None:
    """The budget that is spent most, if any is."""
    found = [entry for entry in spending(limits, stats) if entry.part >= 1]
    return max(found, key=lambda entry: entry.part, default=None)


def nearly_spent(limits: LimitsSpec, before: Stats, after: Stats) -> tuple[Spending, ...]:
    """The budgets that have passed four fifths between the two, and are not spent."""
    earlier = {entry.budget: entry.part for entry in spending(limits, before)}
    return tuple(
        entry
        for entry in spending(limits, after)
        if WARN_AT <= entry.part < 1 and earlier[entry.budget] < WARN_AT
    )


def turns_used_up(limits: LimitsSpec, stats: Stats) -> bool:
    """Whether the run has had all its turns."""
    return limits.turns is not None and stats.turns >= limits.turns


_UNITS: Final = {"tokens": "tokens", "cost_usd": "USD", "wall_clock_s": "s of working time"}
