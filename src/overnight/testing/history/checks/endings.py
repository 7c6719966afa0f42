"""Promise 6: every run is finished or honestly waiting in the end, by legal moves, and no work was lost or repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator

from overnight.testing.history.entries import Closed, Fault, Opened, Posted, Snapshot, Submitted
from overnight.testing.history.model import FINAL, History, RunLog, Violation
from overnight.testing.history.walk import walk

BY_ITSELF = frozenset({"one_turn", "limit"})
"""How a run is completed that nobody and nothing ends before its limits do."""
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
        yield from _work(history, log)
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
    opened, closed = history.opened, history.closed
    over = closed is not None and closed.settled is not None
    for log in history.logs.values():
        last = history.last_snapshots.get(log.run_id)
        if last is None:
            yield _broken(log.run_id, "nobody looked at it in the end")
        elif last.state not in FINAL and not _honest(last, log):
            yield _broken(
                log.run_id, f"it is {last.state} in the end, and waits for {last.waits_for or 'nothing'}"
            )
        elif over and last.last_seq != len(log.bodies):
            yield _broken(
                log.run_id, f"the last snapshot is of event {last.last_seq}, the log has {len(log.bodies)}"
            )
    if opened is not None and closed is not None:
        yield from _in_time(history, opened, closed)


def _honest(snapshot: Snapshot, log: RunLog) -> bool:
    """Whether it stands still because of a person, and names a question that is open."""
    if snapshot.state not in {"waiting", "blocked"}:
        return snapshot.state == "paused"
    told = [
        event["type"]
        for event in log.events
        if isinstance(event["data"], dict) and event["data"].get("approval_id") == snapshot.waits_for
    ]
    return snapshot.waits_for is not None and told != [] and set(told) == {"approval.requested"}


def _in_time(history: History, opened: Opened, closed: Closed) -> Iterator[Violation]:
    stirring = (entry.at for entry in history.entries if isinstance(entry, Fault | Submitted | Posted))
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


def _work(history: History, log: RunLog) -> Iterator[Violation]:
    """Each completed turn was the work of an agent; what its limits ask for was done; nothing failed by itself."""
    lives = history.lives.get(log.run_id, ())
    done = {life.place for life in lives if life.ended is not None}
    for place in log.ended_turns:
        if history.agents and place not in done:
            yield _broken(log.run_id, f"turn {place[0]} is completed, and no agent came to the end of it")
    last, wanted = (log.events[-1] if log.events else {}), history.turns.get(log.run_id)
    data = last.get("data")
    by = data.get("by") if isinstance(data, dict) else None
    if last.get("type") == "run.completed" and by in BY_ITSELF and wanted not in {None, len(log.ended_turns)}:
        yield _broken(log.run_id, f"it is completed after {len(log.ended_turns)} turns, not {wanted}")
    if last.get("type") == "run.failed":
        code = data.get("code") if isinstance(data, dict) else None
        yield _broken(log.run_id, f"it has failed ({code}), although its agents do not")


def _lines(history: History, log: RunLog) -> Iterator[Violation]:
    """What a witness printed stands in the log once and in order, and completely where its turn was completed."""
    completed = {
        (event["turn"], event["attempt"]) for event in log.events if event["type"] == "turn.completed"
    }
    printed = _printed(log)
    lives = history.lives.get(log.run_id, ())
    for life in lives:
        numbers = printed.get(life.place, {}).get(life.name, [])
        if numbers != list(range(1, len(numbers) + 1)):
            yield _broken(log.run_id, f"lines of agent {life.name} are not each there once: {_odd(numbers)}")
        elif life.place in completed and life.lines is not None and len(numbers) != life.lines:
            yield _broken(
                log.run_id, f"agent {life.name} printed {life.lines} lines, the log has {len(numbers)}"
            )
    known = {(life.place, life.name) for life in lives}
    for place, by_name in printed.items():
        for name in sorted(name for name in by_name if (place, name) not in known and history.agents):
            yield _broken(log.run_id, f"it has lines of agent {name}, which was none of its own there")


def _printed(log: RunLog) -> dict[tuple[object, object], dict[str, list[int]]]:
    """By turn and attempt, and by agent: the numbers of its lines, as it printed them or said them."""
    printed: dict[tuple[object, object], str] = {}
    said: dict[tuple[object, object], str] = {}
    for event in log.events:
        data, place = event["data"], (event["turn"], event["attempt"])
        assert isinstance(data, dict)
        if event["type"] == "output.recorded" and data.get("stream") == "stdout":
            printed[place] = printed.get(place, "") + str(data["text"])
        elif event["type"] == "message.completed":
            said[place] = f"{said.get(place, '')}{data['text']}\n"
    found: dict[tuple[object, object], dict[str, list[int]]] = {}
    for place, text in (said | printed).items():
        for name, number in LINE.findall(text):
            found.setdefault(place, {}).setdefault(name, []).append(int(number))
    return found


def _odd(numbers: list[int]) -> str:
    at = next(index for index, number in enumerate(numbers) if number != index + 1)
    return f"{numbers[at]} stands where {at + 1} should be"


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=6, subject=subject, words=words)
