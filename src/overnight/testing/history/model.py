"""A history put in order, as the checks look at it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import orjson

from overnight.testing.history.agents import AgentLife, read_agents
from overnight.testing.history.entries import (
    Closed,
    Conversation,
    Entry,
    Logged,
    Opened,
    Received,
    Snapshot,
    Submitted,
)
from overnight.testing.history.recorder import read_entries

T = TypeVar("T")
FINAL = frozenset({"completed", "failed", "cancelled"})
FINAL_TYPES = {f"run.{state}": state for state in FINAL}
SESSION = "ses_"
"""What the ids of sessions begin with, whose streams readers follow too."""
ALL = "all runs"
"""What stands in the place of a run's id where all are followed."""
JOB = re.compile(r'"job": ?"([^"]+)"')
"""Where the text of a message, or a goal, names the job."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One promise that was broken, by which run or approval, and how. `promise` is its number."""

    promise: int
    subject: str
    words: str

    def __str__(self) -> str:
        return f"promise {self.promise}, {self.subject}: {self.words}"


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """The log of one run as it stood at the end; `bodies` are the exact bytes as text."""

    run_id: str
    bodies: tuple[str, ...]

    @cached_property
    def events(self) -> tuple[dict[str, object], ...]:
        """The same, decoded."""
        return tuple(orjson.loads(body) for body in self.bodies)

    @cached_property
    def ended_turns(self) -> tuple[tuple[object, object], ...]:
        """Turn and attempt of every turn that its agent has brought to its end, without being interrupted."""
        return tuple((event["turn"], event["attempt"]) for event in self.events if _ends_a_turn(event))

    @property
    def final(self) -> str | None:
        """The final state that the log ends in, if it does."""
        return FINAL_TYPES.get(str(self.events[-1]["type"])) if self.events else None


def _ends_a_turn(event: dict[str, object]) -> bool:
    data = event["data"]
    why = data.get("stop_reason", "end_turn") if isinstance(data, dict) else None
    return event["type"] == "turn.completed" and why == "end_turn"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a conversation's history; `key` is the job that its text names, None without one."""

    role: str
    key: str | None
    run_id: str | None
    turn: int | None


class History:
    """Everything that was seen, and what the agents wrote down themselves."""

    def __init__(self, entries: Iterable[Entry], agents: Sequence[AgentLife] = ()) -> None:
        self.entries = tuple(entries)
        self.agents = tuple(agents)

    @classmethod
    def load(cls, path: Path, agents: Path | None = None) -> History:
        """Read both records."""
        return cls(read_entries(path), read_agents(agents) if agents else ())

    def of(self, kind: type[T]) -> Iterator[T]:
        """Every entry of one kind, in order."""
        return (entry for entry in self.entries if isinstance(entry, kind))

    @cached_property
    def logs(self) -> dict[str, RunLog]:
        """The final log of each run: the longest that any server gave."""
        found: dict[str, RunLog] = {}
        for entry in self.of(Logged):
            if entry.run_id not in found or len(entry.bodies) > len(found[entry.run_id].bodies):
                found[entry.run_id] = RunLog(run_id=entry.run_id, bodies=entry.bodies)
        return found

    @cached_property
    def last_snapshots(self) -> dict[str, Snapshot]:
        """The last snapshot of each run."""
        return {entry.run_id: entry for entry in self.of(Snapshot)}

    @cached_property
    def lives(self) -> dict[str, tuple[AgentLife, ...]]:
        """The agents' lives by run, in the order in which they began."""
        found: dict[str, list[AgentLife]] = {}
        for life in self.agents:
            found.setdefault(life.run_id, []).append(life)
        return {run_id: tuple(mine) for run_id, mine in found.items()}

    @cached_property
    def turns(self) -> dict[str, int]:
        """How many turns each run takes to be completed, where its limits alone say so."""
        return {
            entry.run_id: entry.turns
            for entry in self.of(Submitted)
            if entry.run_id is not None and entry.turns is not None
        }

    @cached_property
    def told(self) -> dict[str, tuple[Message, ...]]:
        """What people have said in each session, oldest first: the longest that any server gave."""
        found: dict[str, tuple[str, ...]] = {}
        for entry in self.of(Conversation):
            found[entry.session_id] = max(found.get(entry.session_id, ()), entry.bodies, key=len)
        return {session_id: tuple(map(_message, bodies)) for session_id, bodies in found.items()}

    @cached_property
    def heard(self) -> dict[str, int]:
        """For each session the last seq that any reader of its stream got."""
        found: dict[str, int] = {}
        for entry in self.of(Received):
            if entry.run_id.startswith(SESSION):
                found[entry.run_id] = max(found.get(entry.run_id, 0), entry.seq)
        return found

    @cached_property
    def first_seen(self) -> dict[str, dict[int, float]]:
        """For each run and seq: when the first reader had it."""
        found: dict[str, dict[int, float]] = {}
        for entry in self.of(Received):
            mine = found.setdefault(entry.run_id, {})
            mine[entry.seq] = min(mine.get(entry.seq, entry.at), entry.at)
        return found

    @property
    def opened(self) -> Opened | None:
        """How the history began."""
        return next(self.of(Opened), None)

    @property
    def closed(self) -> Closed | None:
        """That the history is complete; None when the recording broke off."""
        return next(self.of(Closed), None)


def _message(body: str) -> Message:
    found = orjson.loads(body)
    job = JOB.search(found["text"])
    return Message(
        role=found["role"], key=job[1] if job else None, run_id=found["run_id"], turn=found["turn"]
    )
