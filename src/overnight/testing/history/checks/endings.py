"""Promise 6: every run is finished or honestly waiting in the end, by legal moves, and no work was lost or repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator

from overnight.testing.history.entries import Closed, Fault, Opened, Snapshot, Submitted
from overnight.testing.history.model import FINAL, History, RunLog, Violation
from overnight.testing.history.walk import walk

LINE = re.compile(r"^witness (\d+\.\d+\.\d+) (\d+)$", re.MULTILINE)


def check(history: History) -> Iterator[Violation]:
    """Each log's moves, what snapshots said of them, the end, and the agents' lines."""
    states: dict[str, tuple[str | None, ...]] = {}
    for log in history.logs.values():
        walked = walk(log.events)
        states[log.run_id] = walked.states
        for words in walked.faults:
            yield _broken(log.run_id, words)
        yield from _lines(history, log)
    yield from _snapshots(history, states)
    yield from _ends(history)


def _snapshots(history: History, states: dict[str, tuple[str | None, ...]]) -> Iterator[Violation]:
    """A snapshot shows the state that the log is in at the seq that the snapshot names."""
    for entry in history.of(Snapshot):
        known = states.get(entry.run_id)
        if known is None:
            continue
        if not 0 < entry.last_seq < len(known):
            yield _broken(
                entry.run_id, f"a snapshot knows event {entry.last_seq}, which the log does not have"
            )
        elif known[entry.last_seq] not in {entry.state, None}:
            yield _broken(
                entry.run_id,
                f"a snapshot says {entry.state} at {entry.last_seq}, the log {known[entry.last_seq]}",
            )


def _ends(history: History) -> Iterator[Violation]:
    for run_id in history.logs:
        last = history.last_snapshots.get(run_id)
        if last is None:
            yield _broken(run_id, "nobody looked at it in the end")
        elif last.state not in FINAL and not _honest(last):
            yield _broken(
                run_id, f"it is {last.state} in the end, and waits for {last.waits_for or 'nothing'}"
            )
    opened, closed = history.opened, history.closed
    if opened is not None and closed is not None:
        yield from _in_time(history, opened, closed)


def _honest(snapshot: Snapshot) -> bool:
    """Whether it stands still because of a person, and says which question."""
    return snapshot.state == "paused" or (
        snapshot.state in {"waiting", "blocked"} and bool(snapshot.waits_for)
    )


def _in_time(history: History, opened: Opened, closed: Closed) -> Iterator[Violation]:
    stirring = (entry.at for entry in history.entries if isinstance(entry, Fault | Submitted))
    calm = max(stirring, default=opened.at)
    if closed.settled is None:
        yield _broken(
            "the history",
            f"{closed.at - calm:.1f} s after the last fault or submission some work was still under way",
        )
    elif closed.settled - calm > opened.bound_s:
        took = closed.settled - calm
        yield _broken(
            "the history",
            f"it took {took:.1f} s after the last fault or submission, not {opened.bound_s:.0f}",
        )


def _lines(history: History, log: RunLog) -> Iterator[Violation]:
    """What a witness printed stands in the log once and in order, and completely where its turn was completed."""
    completed = {
        (event["turn"], event["attempt"]) for event in log.events if event["type"] == "turn.completed"
    }
    printed = _printed(log)
    for life in history.lives.get(log.run_id, ()):
        place = life.turn, life.attempt
        numbers = printed.get(place, {}).get(life.name, [])
        if numbers != list(range(1, len(numbers) + 1)):
            yield _broken(log.run_id, f"lines of agent {life.name} are not each there once: {_odd(numbers)}")
        elif place in completed and life.lines is not None and len(numbers) != life.lines:
            yield _broken(
                log.run_id, f"agent {life.name} printed {life.lines} lines, the log has {len(numbers)}"
            )


def _printed(log: RunLog) -> dict[tuple[object, object], dict[str, list[int]]]:
    texts: dict[tuple[object, object], list[str]] = {}
    for event in log.events:
        data = event["data"]
        if event["type"] == "output.recorded" and isinstance(data, dict) and data.get("stream") == "stdout":
            texts.setdefault((event["turn"], event["attempt"]), []).append(str(data["text"]))
    found: dict[tuple[object, object], dict[str, list[int]]] = {}
    for place, pieces in texts.items():
        for name, number in LINE.findall("".join(pieces)):
            found.setdefault(place, {}).setdefault(name, []).append(int(number))
    return found


def _odd(numbers: list[int]) -> str:
    at = next(index for index, number in enumerate(numbers) if number != index + 1)
    return f"{numbers[at]} stands where {at + 1} should be"


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=6, subject=subject, words=words)
