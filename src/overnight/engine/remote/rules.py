"""What a worker elsewhere may write about the run that it holds. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from overnight.domain.event import TYPES
from overnight.domain.run import Run
from overnight.domain.states import TRANSITIONS, Input, State
from overnight.errors import Forbidden, InvalidTransition
from overnight.ids import WorkerId

MOVES: Final = frozenset(
    {
        Input.PAUSE, Input.TURN_SETTLED, Input.BLOCK, Input.WAIT, Input.DECIDE, Input.PARK, Input.COMPLETE,
        Input.FAIL, Input.TREE_GONE, Input.ADOPT, Input.HAND_BACK,
    }
)  # fmt: skip
"""What a holder can make happen to its run. The rest is for people and for the server."""
SAID: Final[Mapping[str, frozenset[State] | None]] = {
    "run.recovered": None,
    "run.resumed": frozenset({State.RUNNING}),
    "run.pausing": frozenset({State.PAUSING}),
    "run.paused": frozenset({State.PAUSED}),
    "run.waiting": frozenset({State.WAITING}),
    "run.blocked": frozenset({State.BLOCKED}),
    "run.requeued": frozenset({State.QUEUED}),
    "run.cancelled": frozenset({State.CANCELLED}),
    "run.completed": frozenset({State.COMPLETED}),
    "run.failed": frozenset({State.FAILED}),
}
"""The event of each move, and the states that it may lead to (None: the state stays)."""
TURN_ENDS: Final = frozenset({"turn.completed", "turn.failed", "turn.abandoned"})
_OTHERS: Final = re.compile(r"(?:run|turn|session|control|approval|child|budget)\..*")
_SHAPE: Final = re.compile(r"[a-z]{1,30}\.[a-z_]{1,40}")
_MINE: Final = frozenset(
    {"turn.started", *TURN_ENDS, "approval.requested", "approval.cancelled", "approval.resolved",
     "budget.warned", "budget.spent"}
)  # fmt: skip
_COPIED: Final = (
    "pid", "attempt", "turn", "fallback", "stats", "idle_turns", "completion", "error", "waiting_for",
    "waiting_until", "waiting_since", "pause_reason", "cancellation", "not_before", "sandbox_effective", "now",
)  # fmt: skip


def is_telemetry(type: str) -> bool:
    """Whether an event only tells what an agent did: it moves nothing. A newer worker may know more of them."""
    return _SHAPE.fullmatch(type) is not None and _OTHERS.fullmatch(type) is None


def check_type(type: str) -> None:
    """Raise Forbidden unless a holder may write that event into its run's log."""
    if not (is_telemetry(type) or type in _MINE or type in SAID):
        why = "is the server's to write" if type in TYPES else "is no event"
        raise Forbidden(f"{type[:80]!r} {why}")


def moved(run: Run, wanted: Run, said: str | None, worker: WorkerId, now_ms: int) -> Run:
    """`run` with what `wanted` changes of it. Raises InvalidTransition for what the state machine does not know, and
    Forbidden where the event that was `said` does not fit.
    """
    changes: dict[str, object] = {name: getattr(wanted, name) for name in _COPIED}
    changes["worker"] = None if wanted.worker is None else worker
    states = SAID.get(said) if said is not None else None
    if wanted.state is run.state:
        if states is not None:
            raise Forbidden(f"{said} says that the run moves, and it does not")
        return replace(run, **changes, updated_at=now_ms)  # type: ignore[arg-type]
    if states is None or wanted.state not in states:
        raise Forbidden(f"the run cannot become {wanted.state.value} with {said or 'no event'}")
    return run.moved(_input(run.state, wanted.state), now_ms, **changes)


def _input(state: State, wanted: State) -> Input:
    for input, to in TRANSITIONS[state].items():
        if to is wanted and input in MOVES:
            return input
    raise InvalidTransition(state.value, f"become {wanted.value}")
