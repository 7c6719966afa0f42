"""Promise 1: what was accepted is never lost, what was refused was not done, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.history.checks.decisions import option_of
from overnight.testing.history.entries import Controlled, Listed, Posted, Submitted
from overnight.testing.history.model import JOB, History, RunLog, Violation

TRACES = {
    "cancel": {"run.cancelled"},
    "pause": {"run.pausing", "run.paused"},
    "resume": {"run.resumed", "run.waiting"},
    "steer": {"run.steered"},
}
"""What an accepted control leaves in a log, one of these."""


def check(history: History) -> Iterator[Violation]:
    """Submissions by their keys, what agents were given to do, and controls that were accepted."""
    by_key: dict[str, list[Submitted]] = {}
    for entry in history.of(Submitted):
        by_key.setdefault(entry.key, []).append(entry)
    there = _made(history)
    for key, answers in by_key.items():
        yield from _submission(history, key, answers, there.get(key, set()))
    for key, runs in there.items():
        if key not in by_key:
            yield _broken(", ".join(sorted(runs)), "nobody submitted it")
    yield from _owners(history)
    yield from _listings(history)
    yield from _controls(history)


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
    """The runs that any server lists, by the key in their labels; those of conversations have none, and no key."""
    talks = {entry.run_id for entry in history.of(Posted)}
    talks |= {message.run_id for said in history.told.values() for message in said}
    found: dict[str, set[str]] = {}
    for listed in history.of(Listed):
        for run_id, key in listed.runs.items():
            if key or run_id not in talks:
                found.setdefault(key, set()).add(run_id)
    return found


def _owners(history: History) -> Iterator[Violation]:
    """A run belongs to one key, in the answers, in its goal, and in what each of its agents was told to do."""
    owners: dict[str, str] = {}
    for entry in history.of(Submitted):
        if entry.outcome == "accepted" and entry.run_id:
            first = owners.setdefault(entry.run_id, entry.key)
            if first != entry.key:
                yield _broken(entry.run_id, f"it was the answer to {first} and to {entry.key}")
    for run_id, key in owners.items():
        log = history.logs.get(run_id)
        for job in _goal_of(log) if log else ():
            if job != key:
                yield _broken(run_id, f"it was submitted under {key}, and its goal is that of {job}")
        for life in history.lives.get(run_id, ()):
            if life.job not in {"", key}:
                yield _broken(
                    run_id, f"it was submitted under {key}, and agent {life.name} worked on {life.job}"
                )


def _goal_of(log: RunLog) -> Iterator[str]:
    for event in log.events:
        data = event["data"]
        found = JOB.search(str(data.get("goal"))) if isinstance(data, dict) else None
        if event["type"] == "run.queued" and found:
            yield found[1]


def _listings(history: History) -> Iterator[Violation]:
    """Every accepted run stands in every listing that was made at the end, once."""
    accepted = {
        entry.run_id for entry in history.of(Submitted) if entry.outcome == "accepted" and entry.run_id
    }
    accepted |= {entry.run_id for entry in history.of(Posted) if entry.outcome == "accepted" and entry.run_id}
    for listed in history.of(Listed):
        for run_id in sorted(accepted - listed.runs.keys()):
            yield _broken(run_id, f"it was accepted, and {listed.server} does not list it")
        for run_id in listed.twice:
            yield _broken(run_id, f"{listed.server} lists it more than once")


def _controls(history: History) -> Iterator[Violation]:
    """What was accepted left its trace, and nothing else cancels."""
    asked: dict[str, set[str]] = {}
    for entry in history.of(Controlled):
        if entry.outcome != "refused":
            asked.setdefault(entry.run_id, set()).add(entry.action)
        log = history.logs.get(entry.run_id)
        if entry.outcome != "accepted" or log is None:
            continue
        types = {event["type"] for event in log.events}
        if not types & TRACES[entry.action]:
            yield _broken(
                entry.run_id, f"its {entry.action} was accepted, and it is {log.final or 'not over'}"
            )
    for log in history.logs.values():
        if log.final == "cancelled" and "cancel" not in asked.get(log.run_id, ()) and not _decided_so(log):
            yield _broken(log.run_id, "it is cancelled, and nobody's cancel was accepted")


def _decided_so(log: RunLog) -> bool:
    decisions = (event["data"] for event in log.events if event["type"] == "approval.resolved")
    return any(isinstance(data, dict) and option_of(data) == "cancel" for data in decisions)


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=1, subject=subject, words=words)
