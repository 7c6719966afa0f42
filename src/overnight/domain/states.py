"""The states of a run and every move between them, as data.

The table is the only place where a move is allowed; the SQL CHECK, the reference page and a property test are made
from it.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from overnight.errors import InvalidTransition


class State(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    WAITING = "waiting"
    BLOCKED = "blocked"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Input(StrEnum):
    """What can happen to a run."""

    CLAIM = "claim"
    PAUSE = "pause"
    RESUME = "resume"
    RESUME_WAITING = "resume_waiting"
    TURN_SETTLED = "turn_settled"
    BLOCK = "block"
    WAIT = "wait"
    DECIDE = "decide"
    PARK = "park"
    CONTINUE = "continue"
    FINISH = "finish"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    TREE_GONE = "tree_gone"
    ADOPT = "adopt"
    HAND_BACK = "hand_back"


MEANINGS: Final = MappingProxyType(
    {
        Input.CLAIM: "a worker took the run",
        Input.PAUSE: "a person (or a failing backend) asked for a pause",
        Input.RESUME: "a person asked to go on",
        Input.RESUME_WAITING: "resume, while an approval is still open",
        Input.TURN_SETTLED: "the turn in progress has ended and a pause was asked for",
        Input.BLOCK: "a person is needed; the agent lives on under its keeper",
        Input.WAIT: "a person is needed; no process lives",
        Input.DECIDE: "the decision came while the agent was alive",
        Input.PARK: "the agent was stopped, or died, while it waited",
        Input.CONTINUE: "the decision is to go on",
        Input.FINISH: "the decision is to stop here and count it as done",
        Input.COMPLETE: "the run is done",
        Input.FAIL: "the run cannot go on",
        Input.CANCEL: "somebody asked to stop it",
        Input.TREE_GONE: "the agent's process tree is confirmed gone, or its keeper's own deadline has passed",
        Input.ADOPT: "the next holder took over a living turn",
        Input.HAND_BACK: "the hold was given back in order, or lost for good",
    }
)

FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
HELD: Final = frozenset({State.RUNNING, State.PAUSING, State.BLOCKED, State.CANCELLING})
"""States in which a worker holds the run."""

_TABLE: dict[State, dict[Input, State]] = {
    State.QUEUED: {
        Input.CLAIM: State.RUNNING,
        Input.PAUSE: State.PAUSED,
        Input.CANCEL: State.CANCELLED,
        Input.FAIL: State.FAILED,
    },
    State.RUNNING: {
        Input.PAUSE: State.PAUSING,
        Input.BLOCK: State.BLOCKED,
        Input.WAIT: State.WAITING,
        Input.COMPLETE: State.COMPLETED,
        Input.FAIL: State.FAILED,
        Input.CANCEL: State.CANCELLING,
        Input.ADOPT: State.RUNNING,
        Input.HAND_BACK: State.QUEUED,
    },
    State.PAUSING: {
        Input.TURN_SETTLED: State.PAUSED,
        Input.RESUME: State.RUNNING,
        Input.BLOCK: State.BLOCKED,
        Input.WAIT: State.WAITING,
        Input.COMPLETE: State.COMPLETED,
        Input.FAIL: State.FAILED,
        Input.CANCEL: State.CANCELLING,
        Input.ADOPT: State.PAUSING,
        Input.HAND_BACK: State.PAUSED,
    },
    State.PAUSED: {
        Input.RESUME: State.QUEUED,
        Input.RESUME_WAITING: State.WAITING,
        Input.CANCEL: State.CANCELLED,
        Input.FAIL: State.FAILED,
    },
    State.WAITING: {
        Input.CONTINUE: State.QUEUED,
        Input.FINISH: State.COMPLETED,
        Input.PAUSE: State.PAUSED,
        Input.CANCEL: State.CANCELLED,
        Input.FAIL: State.FAILED,
    },
    State.BLOCKED: {
        Input.DECIDE: State.RUNNING,
        Input.PARK: State.WAITING,
        Input.CANCEL: State.CANCELLING,
        Input.ADOPT: State.BLOCKED,
        Input.HAND_BACK: State.WAITING,
    },
    State.CANCELLING: {
        Input.TREE_GONE: State.CANCELLED,
        Input.ADOPT: State.CANCELLING,
    },
    State.COMPLETED: {},
    State.FAILED: {},
    State.CANCELLED: {},
}
TRANSITIONS: Final = MappingProxyType({state: MappingProxyType(row) for state, row in _TABLE.items()})


def advance(state: State, input: Input) -> State:
    """The state after `input`. Raises `InvalidTransition` naming both when the table has no such row."""
    try:
        return TRANSITIONS[state][input]
    except KeyError:
        raise InvalidTransition(state.value, input.value) from None


def accepts(state: State, input: Input) -> bool:
    """Whether the table has a row for it."""
    return input in TRANSITIONS[state]


class TurnState(StrEnum):
    """Where a turn stands; every state but `started` is final."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"


TURN_TRANSITIONS: Final = MappingProxyType(
    {
        TurnState.STARTED: frozenset({TurnState.COMPLETED, TurnState.FAILED, TurnState.ABANDONED}),
        TurnState.COMPLETED: frozenset[TurnState](),
        TurnState.FAILED: frozenset[TurnState](),
        TurnState.ABANDONED: frozenset[TurnState](),
    }
)
