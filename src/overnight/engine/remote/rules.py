"""What a worker elsewhere may write about the run that it holds. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from overnight.domain.action import Action
from overnight.domain.approval import ALLOWING, LASTING, Approval, Option
from overnight.domain.event import FINAL_TYPES, TYPES
from overnight.domain.redaction import Redactor
from overnight.domain.run import Run, Turn
from overnight.domain.states import TRANSITIONS, Input, State
from overnight.errors import Forbidden, InvalidInput, InvalidTransition
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
MOST_NUMBER: Final = 1 << 53
LONGEST_TEXT: Final = 1024 * 1024
"""Characters of one text outside of events, histories and what an agent wants to do."""
MOST_OPTIONS: Final = 100
_OTHERS: Final = re.compile(r"(?:run|turn|session|control|approval|child|budget)\..*|.*\.delta")
"""What is not for whoever only tells what an agent did. Deltas are never in a log."""
_SHAPE: Final = re.compile(r"[a-z]{1,30}\.[a-z_]{1,40}")
_MINE: Final = frozenset(
    {"turn.started", *TURN_ENDS, "approval.requested", "approval.cancelled", "approval.resolved",
     "budget.warned", "budget.spent"}
)  # fmt: skip
_COPIED: Final = (
    "pid", "attempt", "turn", "fallback", "stats", "idle_turns", "completion", "error", "waiting_for",
    "waiting_until", "waiting_since", "pause_reason", "cancellation", "not_before", "sandbox_effective", "now",
)  # fmt: skip
_ABOUT_BUDGETS: Final = frozenset({"raise", "finish", "cancel"})


def is_telemetry(type: str) -> bool:
    """Whether an event only tells what an agent did: it moves nothing. A newer worker may know more of them."""
    return _SHAPE.fullmatch(type) is not None and _OTHERS.fullmatch(type) is None


def check_type(type: str) -> None:
    """Raise Forbidden unless a holder may write that event into its run's log."""
    if not (is_telemetry(type) or type in _MINE or type in SAID):
        why = "is the server's to write" if type in TYPES else "is no event"
        raise Forbidden(f"{type[:80]!r} {why}")


def check_values(value: object) -> None:
    """Raise InvalidInput for a number that no count, key or time can be, or a text that is no single word of anything.

    Looks into tuples and our own values; what only agents understand (mappings, actions) may hold any numbers.
    """
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise InvalidInput(f"a text is longer than {LONGEST_TEXT} characters")
    elif isinstance(value, int | float):
        if not 0 <= value <= MOST_NUMBER:
            raise InvalidInput(f"{str(value)[:40]} is below 0 or above {MOST_NUMBER}")
    elif isinstance(value, tuple):
        for one in value:
            check_values(one)
    elif not isinstance(value, Action | Mapping | bytes):
        for name in getattr(value, "__slots__", ()):
            check_values(getattr(value, name))


def moved(run: Run, wanted: Run, said: str | None, worker: WorkerId, now_ms: int) -> Run:
    """`run` with what `wanted` changes of it. Raises InvalidTransition for what the state machine does not know, and
    Forbidden where the event that was `said` does not fit.
    """
    if not 0 <= wanted.fallback <= len(run.spec.fallback):
        raise Forbidden("there is no such fallback")
    if wanted.sandbox_effective not in {"none", run.spec.sandbox, run.sandbox_effective}:
        raise Forbidden("that is no sandbox which was asked for")
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


def is_end(type: str) -> bool:
    """Whether nothing may follow that event."""
    return type in FINAL_TYPES


def hidden_run(run: Run, redactor: Redactor) -> Run:
    """The run with no secret in what it shows of its agent's words."""
    hide = redactor.text
    completion, error, waiting, now = run.completion, run.error, run.waiting_for, run.now
    return replace(
        run,
        completion=completion and replace(completion, line=completion.line and hide(completion.line)),
        error=error and replace(error, message=hide(error.message)),
        waiting_for=waiting and replace(waiting, detail=hide(waiting.detail)),
        now=now and replace(now, text=hide(now.text)),
    )


def hidden_turn(turn: Turn, redactor: Redactor) -> Turn:
    """The same of a turn."""
    return replace(
        turn,
        error=turn.error and replace(turn.error, message=redactor.text(turn.error.message)),
        last_message=turn.last_message and redactor.text(turn.last_message),
        stop_reason=turn.stop_reason and redactor.text(turn.stop_reason),
    )


def own_backends(run: Run) -> frozenset[str]:
    """The backends whose memory belongs to the run."""
    others = (fallback.partition("/")[0] for fallback in run.spec.fallback)
    return frozenset({run.backend, run.spec.backend_name, *others})


def check_question(approval: Approval) -> None:
    """Raise Forbidden for a question that would be answered by itself, or whose answer would reach beyond the action.

    What nobody decides in time is decided by the default: that may allow nothing. A lasting answer writes a rule for
    the whole session: that may only be the exact rule for what was asked.
    """
    ids = [option.id for option in approval.options]
    if len(ids) > MOST_OPTIONS or len(set(ids)) != len(ids):
        raise Forbidden("a question has few options, each with an id of its own")
    default = approval.option(approval.default_option)
    if default is None or default.kind in ALLOWING | LASTING | {"answer"}:
        raise Forbidden("what nobody decides is not allowed: the default option must reject, or finish")
    for option in approval.options:
        if (option.kind in _ABOUT_BUDGETS) != (approval.kind == "budget"):
            raise Forbidden(f"{option.kind!r} is no answer to a question about a {approval.kind}")
        if (option.kind in LASTING) != (option.rule is not None):
            raise Forbidden("a lasting answer, and no other, writes a rule")
        if option.rule is not None and not _is_exact(option, approval.action):
            raise Forbidden("a lasting answer is about exactly what was asked")


def _is_exact(option: Option, action: Action | None) -> bool:
    rule = option.rule
    if rule is None or action is None or not rule.exact or rule.argv is not None:
        return False
    effect = "allow" if option.kind == "allow_always" else "reject"
    named = rule.tool in {action.kind, action.tool} and rule.command == action.command
    return rule.effect == effect and named and (rule.host is None or rule.host in action.hosts)
