"""Promise 3: at most one live executor of a run, and nobody without the present token adds to its log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from overnight.testing.history.agents import AgentLife
from overnight.testing.history.model import History, RunLog, Violation

SETTLED = frozenset({"turn.completed", "turn.failed", "turn.abandoned"})
SAID_BY_AGENTS = frozenset(
    {
        "output.recorded", "message.completed", "agent.custom", "usage.recorded", "reasoning.completed",
        "plan.updated", "tool.started", "tool.completed", "command.started", "command.completed",
    }
)  # fmt: skip
"""What only the holder of a turn records."""

NEW_HOLD = frozenset({"run.recovered", "run.requeued"})


def check(history: History) -> Iterator[Violation]:
    """The agents' own record, then the log: nothing of a turn stands after its settlement."""
    for run_id, lives in history.lives.items():
        yield from _lives(run_id, lives)
        if run_id in history.logs:
            yield from _known(history.logs[run_id], lives)
            yield from _outlived(history.logs[run_id], lives, history.first_seen.get(run_id, {}))
    for log in history.logs.values():
        yield from _nothing_late(log)


def _lives(run_id: str, lives: tuple[AgentLife, ...]) -> Iterator[Violation]:
    for life in lives:
        if life.clashed:
            yield _broken(run_id, f"agent {life.name} found another one alive when it began")
    for one, two in pairwise(lives):
        if two.began < one.seen:
            yield _broken(
                run_id, f"agents {one.name} and {two.name} lived at once for {one.seen - two.began:.3f} s"
            )
        if (two.turn, two.attempt) <= (one.turn, one.attempt):
            yield _broken(run_id, f"agent {two.name} was started after {one.name}")
        if two.token < one.token:
            yield _broken(run_id, f"agent {two.name} has token {two.token} after {one.token}")


def _known(log: RunLog, lives: tuple[AgentLife, ...]) -> Iterator[Violation]:
    """Every agent that lived belongs to a turn that the log tells of, and a new hold has a higher token."""
    holds = _holds(log)
    for one, two in pairwise(lives):
        before, after = holds.get((one.turn, one.attempt)), holds.get((two.turn, two.attempt))
        if two.token == one.token and before is not None and after is not None and after > before:
            yield _broken(log.run_id, f"agent {two.name} has the token of {one.name}, whose hold was lost")
    told = {
        (event["turn"], event["attempt"])
        for event in log.events
        if event["type"] in SETTLED or event["type"] == "turn.started"
    }
    for life in lives:
        if (life.turn, life.attempt) not in told and log.final is not None:
            yield _broken(log.run_id, f"agent {life.name} lived, and its log tells nothing of that turn")


def _outlived(log: RunLog, lives: tuple[AgentLife, ...], seen: dict[int, float]) -> Iterator[Violation]:
    """No agent lives on once its turn is settled, by whomever: nobody may take it over before."""
    for seq, event in enumerate(log.events, 1):
        if event["type"] not in SETTLED or seq not in seen:
            continue
        for life in lives:
            if life.place == (event["turn"], event["attempt"]) and life.seen > seen[seq]:
                late = life.seen - seen[seq]
                yield _broken(log.run_id, f"agent {life.name} lived for {late:.3f} s after {event['type']}")


def _holds(log: RunLog) -> dict[tuple[object, object], int]:
    """Under which hold each turn was begun, counted by the events that tell of a new one.

    One that was only recorded by a hold that adopted its agent was begun by an earlier one: it is left out.
    """
    found: dict[tuple[object, object], int] = {}
    number, adopted = 0, False
    for event in log.events:
        number += event["type"] in NEW_HOLD
        data = event["data"]
        if event["type"] in NEW_HOLD:
            adopted = isinstance(data, dict) and data.get("adopted") is True
        elif event["type"] in SETTLED:
            adopted = False
        if event["type"] == "turn.started" and not adopted:
            found[event["turn"], event["attempt"]] = number
    return found


def _nothing_late(log: RunLog) -> Iterator[Violation]:
    settled: set[tuple[object, object]] = set()
    for event in log.events:
        place = event["turn"], event["attempt"]
        if event["type"] in SETTLED:
            settled.add(place)
        elif event["type"] in SAID_BY_AGENTS and place in settled:
            yield _broken(
                log.run_id,
                f"event {event['seq']} belongs to turn {place[0]}.{place[1]}, which was settled before",
            )


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=3, subject=subject, words=words)
