"""Promise 2 for those who watch all runs: changes come in order, and the last one of no run is missed."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.history.entries import Summed
from overnight.testing.history.model import History, Violation


def check(history: History) -> Iterator[Violation]:
    """Every reader of summaries: its positions rise, and in the end it knows each run as the run is."""
    newest: dict[str, int] = {}
    known: dict[str, dict[str, Summed]] = {}
    for entry in history.of(Summed):
        before = newest.get(entry.reader, 0)
        if entry.change <= before:
            yield _broken(entry.run_id, f"{entry.reader} got change {entry.change} after {before}")
        newest[entry.reader] = entry.change
        earlier = known.setdefault(entry.reader, {}).get(entry.run_id)
        if earlier is not None and entry.last_seq < earlier.last_seq:
            yield _broken(
                entry.run_id, f"{entry.reader} saw it at {earlier.last_seq}, then at {entry.last_seq}"
            )
        known[entry.reader][entry.run_id] = entry
    for reader, runs in known.items():
        for log in history.logs.values():
            shown = runs.get(log.run_id)
            if log.final is not None and (shown is None or shown.state != log.final):
                last = "not at all" if shown is None else f"as {shown.state}"
                yield _broken(log.run_id, f"it is {log.final}, and {reader} knows it {last}")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=2, subject=subject, words=words)
