"""A history put in order, as the checks look at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import orjson

from overnight.testing.history.agents import AgentLife, read_agents
from overnight.testing.history.entries import Closed, Entry, Logged, Opened, Snapshot
from overnight.testing.history.recorder import read_entries

T = TypeVar("T")
FINAL = frozenset({"completed", "failed", "cancelled"})
FINAL_TYPES = {f"run.{state}": state for state in FINAL}


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

    @property
    def final(self) -> str | None:
        """The final state that the log ends in, if it does."""
        return FINAL_TYPES.get(str(self.events[-1]["type"])) if self.events else None


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

    @property
    def opened(self) -> Opened | None:
        """How the history began."""
        return next(self.of(Opened), None)

    @property
    def closed(self) -> Closed | None:
        """That the history is complete; None when the recording broke off."""
        return next(self.of(Closed), None)
