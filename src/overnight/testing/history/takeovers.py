"""How long runs went without a holder after their host was lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from overnight.testing.history.agents import AgentLife
from overnight.testing.history.entries import Fault, Submitted
from overnight.testing.history.model import History, RunLog

TAKEN = frozenset({"run.recovered", "run.requeued"})
OVER = frozenset({"run.completed", "run.failed", "run.cancelled", "run.paused", "run.waiting"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """A run whose host was lost at `lost` (boot clock), and taken up by whoever `seconds` later."""

    run_id: str
    fault: str
    lost: float
    seconds: float
    adopted: bool
    """With its turn alive."""
    by_others: bool
    """By another host than the one that was lost; False: its own came back."""
    place: str = ""
    """What kind of workspace it has, as its submission says."""
    margin_s: float | None = None
    """How long before that its agent was last seen alive; None where it lives on, or had ended before the loss."""


def takeovers(history: History) -> Iterator[Takeover]:
    """Every run that was held by a host at the moment when that was lost, and was taken up afterwards."""
    places = {entry.run_id: entry.place for entry in history.of(Submitted) if entry.run_id is not None}
    lost = [fault for fault in history.of(Fault) if fault.phase == "began" and fault.host]
    for log in history.logs.values():
        for fault in lost:
            found = _taken(log, history.first_seen.get(log.run_id, {}), fault)
            if found is not None:
                lives = history.lives.get(log.run_id, ())
                yield replace(found, place=places.get(log.run_id, ""), margin_s=_margin(found, lives))


def _margin(found: Takeover, lives: Sequence[AgentLife]) -> float | None:
    at = found.lost + found.seconds
    seen = [life.seen for life in lives if life.began < at and life.seen > found.lost]
    return None if found.adopted or not seen else at - max(seen)


def _taken(log: RunLog, seen: dict[int, float], fault: Fault) -> Takeover | None:
    holder: object = None
    for seq, event in enumerate(log.events, 1):
        at, data = seen.get(seq, 0.0), event["data"]
        if at > fault.at:
            if holder != fault.host:
                return None
            if event["type"] in TAKEN:
                told = data if isinstance(data, dict) else {}
                return Takeover(
                    run_id=log.run_id, fault=fault.name, lost=fault.at, seconds=at - fault.at,
                    adopted=told.get("adopted") is True, by_others=told.get("reason") == "worker_gone",
                )  # fmt: skip
            if event["type"] in OVER:
                return None
        elif event["type"] in OVER or event["type"] == "run.requeued":
            holder = None
        elif isinstance(data, dict) and "host_id" in data:
            holder = data["host_id"]
    return None
