"""Promise 4: an approval is decided once, and what was decided is what the log says."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.history.entries import Decided
from overnight.testing.history.model import History, RunLog, Violation

OVER = {
    "approval.resolved": "resolved",
    "approval.expired": "expired",
    "approval.cancelled": "cancelled",
}


def check(history: History) -> Iterator[Violation]:
    """What the log says of each approval, and whether every decider learned the same."""
    ended: dict[str, str | None] = {}
    for log in history.logs.values():
        yield from _log(log, ended)
    by_approval: dict[str, list[Decided]] = {}
    for entry in history.of(Decided):
        by_approval.setdefault(entry.approval_id, []).append(entry)
    for approval_id, answers in by_approval.items():
        yield from _answers(approval_id, answers, ended)


def _log(log: RunLog, ended: dict[str, str | None]) -> Iterator[Violation]:
    asked: set[str] = set()
    for event in log.events:
        data = event["data"]
        assert isinstance(data, dict)
        approval_id = str(data.get("approval_id"))
        if event["type"] == "approval.requested":
            asked.add(approval_id)
        elif event["type"] in OVER:
            if approval_id not in asked:
                yield _broken(approval_id, f"event {event['seq']} ends it, and nobody had asked")
            if approval_id in ended:
                yield _broken(approval_id, f"event {event['seq']} decides it once more")
            ended[approval_id] = option_of(data) if event["type"] != "approval.cancelled" else None


def option_of(data: dict[str, object]) -> str | None:
    """The option that an `approval.resolved` or `.expired` names."""
    decision = data.get("decision")
    found = decision.get("option") if isinstance(decision, dict) else data.get("option")
    return str(found) if found is not None else None


def _answers(approval_id: str, answers: list[Decided], ended: dict[str, str | None]) -> Iterator[Violation]:
    accepted = {entry.option for entry in answers if entry.outcome == "accepted"}
    if len(accepted) > 1:
        yield _broken(approval_id, f"it was decided as {' and as '.join(sorted(accepted))}")
    counts = {entry.counts for entry in answers if entry.counts is not None}
    if len(counts) > 1:
        yield _broken(approval_id, f"deciders were told that {' and that '.join(sorted(counts))} counts")
    for option in sorted(accepted):
        if approval_id not in ended:
            yield _broken(approval_id, f"{option} was accepted, and the log does not know of it")
        elif ended[approval_id] != option:
            yield _broken(approval_id, f"{option} was accepted, and the log says {ended[approval_id]}")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=4, subject=subject, words=words)
