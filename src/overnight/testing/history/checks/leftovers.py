"""Promise 5: a run that has been cancelled, or has ended in any other way, leaves no living process behind."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.history.entries import Leftover
from overnight.testing.history.model import History, Violation


def check(history: History) -> Iterator[Violation]:
    """Processes that were found, and cancellations that admit survivors."""
    for entry in history.of(Leftover):
        if entry.pids:
            yield _broken(entry.run_id, f"it has ended, and {', '.join(map(str, entry.pids))} live")
    for log in history.logs.values():
        last = log.events[-1] if log.events else {}
        data = last.get("data")
        if last.get("type") == "run.cancelled" and isinstance(data, dict) and data.get("survivors"):
            yield _broken(log.run_id, f"it was cancelled with {data['survivors']} survivors")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=5, subject=subject, words=words)
