"""Promise 1: what was accepted is never lost, what was refused was not done, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.history.entries import Controlled, Listed, Submitted
from overnight.testing.history.model import History, Violation


def check(history: History) -> Iterator[Violation]:
    """Submissions by their keys, and cancels that were accepted."""
    by_key: dict[str, list[Submitted]] = {}
    for entry in history.of(Submitted):
        by_key.setdefault(entry.key, []).append(entry)
    there = _made(history)
    for key, answers in by_key.items():
        yield from _submission(history, key, answers, there.get(key, set()))
    for key, runs in there.items():
        if key not in by_key:
            yield _broken(", ".join(sorted(runs)), "nobody submitted it")
    yield from _listings(history)
    yield from _cancels(history)


def _submission(history: History, key: str, answers: list[Submitted], made: set[str]) -> Iterator[Violation]:
    named = {entry.run_id for entry in answers if entry.outcome == "accepted" and entry.run_id}
    if len(named | made) > 1:
        yield _broken(key, f"one key made several runs: {', '.join(sorted(named | made))}")
    for run_id in sorted(named):
        if run_id not in history.logs or not history.logs[run_id].bodies:
            yield _broken(run_id, "it was accepted, and at the end nobody knows it")
    last = answers[-1]
    if not named and last.outcome == "refused" and all(entry.outcome == "refused" for entry in answers):
        for run_id in sorted(made):
            yield _broken(run_id, f"it was refused ({last.code}) and made all the same")
    if not named and last.outcome == "unknown":
        yield _broken(key, "its outcome was never found out, although the same key was to be sent again")


def _made(history: History) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for listed in history.of(Listed):
        for run_id, key in listed.runs.items():
            found.setdefault(key, set()).add(run_id)
    return found


def _listings(history: History) -> Iterator[Violation]:
    """Every accepted run stands in every listing that was made at the end."""
    accepted = {entry.run_id for entry in history.of(Submitted) if entry.outcome == "accepted"}
    for listed in history.of(Listed):
        for run_id in sorted(str(run_id) for run_id in accepted - listed.runs.keys()):
            yield _broken(run_id, f"it was accepted, and {listed.server} does not list it")


def _cancels(history: History) -> Iterator[Violation]:
    for entry in history.of(Controlled):
        log = history.logs.get(entry.run_id)
        if entry.action != "cancel" or entry.outcome != "accepted" or log is None:
            continue
        if log.final is not None and log.final != "cancelled":
            yield _broken(entry.run_id, f"its cancel was accepted, and it is {log.final}")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=1, subject=subject, words=words)
