"""Promise 7: with a full disk writes are refused with a clear error, and reads and cancels go on."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.history.entries import Probe
from overnight.testing.history.model import History, Violation

CLEAR = frozenset({"disk_full", "unavailable", "outcome_unknown"})
FULL = "full disk"
"""The name of the faults during which this is promised."""


def check(history: History) -> Iterator[Violation]:
    """Every probe that was made while a disk was full."""
    for probe in history.of(Probe):
        if probe.during != FULL:
            continue
        subject = f"a {probe.tried} during a {probe.during}"
        if probe.tried == "write" and probe.outcome != "accepted" and probe.code not in CLEAR:
            yield _broken(subject, f"it was answered with {probe.status} {probe.code or 'without a code'}")
        if probe.tried != "write" and probe.outcome != "accepted":
            yield _broken(subject, f"it was refused with {probe.status} {probe.code or ''}")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=7, subject=subject, words=words)
