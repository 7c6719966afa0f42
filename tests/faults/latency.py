"""How long events took from their place in the log to a reader."""

from __future__ import annotations

import time

from overnight.clock import from_rfc3339
from overnight.testing.history import History, boot
from overnight.testing.history.entries import Connected, Fault, Received


def slowest_delivery_s(history: History, *, target: str) -> float:
    """Of all events that readers got while `target` was broken, and that were recorded while they were connected."""
    offset = time.time() - boot()
    began, ended = (
        next(f.at for f in history.of(Fault) if f.target == target and f.phase == phase)
        for phase in ("began", "ended")
    )
    connected: dict[tuple[str, str], float] = {}
    slowest = 0.0
    for entry in history.entries:
        if isinstance(entry, Connected):
            connected[entry.reader, entry.run_id] = entry.at
        elif isinstance(entry, Received) and began < entry.at < ended:
            event = history.logs[entry.run_id].events[entry.seq - 1]
            recorded = from_rfc3339(str(event["at"])) / 1000 - offset
            if recorded > max(began, connected.get((entry.reader, entry.run_id), ended)):
                slowest = max(slowest, entry.at - recorded)
    return slowest
