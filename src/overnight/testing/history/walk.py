"""The life of a run as its log tells it: a second opinion on the state table, made from the events alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

MOVES: Final[Mapping[str, Mapping[str | None, str]]] = MappingProxyType(
    {
        "run.queued": {None: "queued"},
        "run.started": {"queued": "running"},
        "run.resumed": {
            "queued": "running", "pausing": "running", "blocked": "running",
            "paused": "queued", "waiting": "queued",
        },
        "run.pausing": {"running": "pausing"},
        "run.paused": {"pausing": "paused", "queued": "paused", "waiting": "paused"},
        "run.blocked": {"running": "blocked", "pausing": "blocked"},
        "run.waiting": {"running": "waiting", "pausing": "waiting", "blocked": "waiting", "paused": "waiting"},
        "run.requeued": {"running": "queued"},
        "run.recovered": {name: name for name in ("running", "pausing", "blocked", "cancelling")},
        "run.cancelling": {"running": "cancelling", "pausing": "cancelling", "blocked": "cancelling"},
        "run.cancelled": dict.fromkeys(("cancelling", "queued", "paused", "waiting"), "cancelled"),
        "run.completed": {"running": "completed", "pausing": "completed", "waiting": "completed"},
        "run.failed": dict.fromkeys(("queued", "running", "pausing", "paused", "waiting"), "failed"),
    }
)  # fmt: skip
"""For each type of event that moves a run: where from, where to."""

FINAL: Final = frozenset({"completed", "failed", "cancelled"})
_SETTLED: Final = frozenset({"turn.completed", "turn.failed", "turn.abandoned"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """`states[n]`: the state after event n (None before the first); `faults`: what was not legal."""

    states: tuple[str | None, ...]
    faults: tuple[str, ...]


@dataclass(slots=True)
class _Turns:
    """Turns so far: which is open, which were closed, and how."""

    open: tuple[int, int] | None = None
    last: tuple[int, int] = (0, 0)
    completed: set[int] = field(default_factory=set)

    def started(self, place: tuple[int, int]) -> str | None:
        """What is wrong with a `turn.started` here, if anything."""
        before, was = self.last, self.open
        self.open = self.last = place
        if was is not None:
            return f"turn {_shown(place)} begins while {_shown(was)} is open"
        if place <= before:
            return f"turn {_shown(place)} begins after {_shown(before)}"
        return (
            f"turn {place[0]} begins again, although it was completed" if place[0] in self.completed else None
        )

    def settled(self, place: tuple[int, int], how: str) -> str | None:
        """What is wrong with a settlement here, if anything. A turn may be given up before its agent was started."""
        was, before = self.open, self.last
        self.open, self.last = None, place
        if how == "turn.completed":
            if place[0] in self.completed:
                return f"turn {place[0]} is completed twice"
            self.completed.add(place[0])
        if was == place or (was is None and place > before and how != "turn.completed"):
            return None
        return f"{how} of {_shown(place)}, while {_shown(was) if was else 'no turn'} is open"


def walk(events: Sequence[Mapping[str, object]]) -> Walk:
    """Follow the log from its first event."""
    state: str | None = None
    states: list[str | None] = [None]
    faults: list[str] = []
    turns = _Turns()
    for event in events:
        type, seq = str(event["type"]), event["seq"]
        if state in FINAL:
            faults.append(f"event {seq} ({type}) comes after the end")
        if type in MOVES:
            moved = MOVES[type].get(state)
            if moved is None:
                faults.append(f"event {seq} ({type}) in a run that is {state}")
            state = moved if moved is not None else state
        wrong = _turn(turns, type, event)
        if wrong is not None:
            faults.append(f"event {seq}: {wrong}")
        states.append(state)
    faults += _open_at_the_end(turns, state, events)
    return Walk(states=tuple(states), faults=tuple(faults))


def _turn(turns: _Turns, type: str, event: Mapping[str, object]) -> str | None:
    if type != "turn.started" and type not in _SETTLED:
        return None
    turn, attempt = event["turn"], event["attempt"]
    if not isinstance(turn, int) or not isinstance(attempt, int):
        return f"{type} names no turn"
    if type == "turn.started":
        return turns.started((turn, attempt))
    return turns.settled((turn, attempt), type)


def _open_at_the_end(turns: _Turns, state: str | None, events: Sequence[Mapping[str, object]]) -> list[str]:
    """No turn is open in a run that has ended, but where nobody could look any more and the cancel says so."""
    if turns.open is None or state not in FINAL:
        return []
    data = events[-1]["data"]
    unseen = isinstance(data, Mapping) and "survivors" in data and data["survivors"] is None
    return [] if unseen else [f"the run has ended with turn {_shown(turns.open)} open"]


def _shown(place: tuple[int, int]) -> str:
    return f"{place[0]}.{place[1]}"
