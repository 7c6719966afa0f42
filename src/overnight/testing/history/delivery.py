"""How long events took from their place in the log to readers while something was broken."""

from __future__ import annotations

import time
from dataclasses import dataclass

from overnight.clock import from_rfc3339
from overnight.testing.history.entries import Connected, Fault, Received
from overnight.testing.history.model import History
from overnight.testing.history.recorder import boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """All that readers got while `target` was broken, and that was recorded while they were connected."""

    target: str
    lasted_s: float
    events: int
    most_s: float
    """99 of 100 took at most that."""
    slowest_s: float


def deliveries(history: History, target: str) -> tuple[Deliveries, ...]:
    """For each time that it was broken. Only on the machine that recorded it, not over a boot: `at` is wall clock."""
    faults = [fault for fault in history.of(Fault) if fault.target == target]
    began = [fault.at for fault in faults if fault.phase == "began"]
    ended = [fault.at for fault in faults if fault.phase == "ended"]
    return tuple(_between(history, target, start, end) for start, end in zip(began, ended, strict=False))


def _between(history: History, target: str, began: float, ended: float) -> Deliveries:
    offset = time.time() - boot()
    connected: dict[tuple[str, str], float] = {}
    took = []
    for entry in history.entries:
        if isinstance(entry, Connected):
            connected[entry.reader, entry.run_id] = entry.at
        elif isinstance(entry, Received) and began < entry.at < ended and entry.run_id in history.logs:
            event = history.logs[entry.run_id].events[entry.seq - 1]
            recorded = from_rfc3339(str(event["at"])) / 1000 - offset
            if recorded > max(began, connected.get((entry.reader, entry.run_id), ended)):
                took.append(entry.at - recorded)
    took.sort()
    return Deliveries(
        target=target, lasted_s=ended - began, events=len(took),
        most_s=took[len(took) * 99 // 100] if took else 0.0, slowest_s=took[-1] if took else 0.0,
    )  # fmt: skip
