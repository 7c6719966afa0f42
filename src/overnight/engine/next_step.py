"""What happens after a turn: a pure function of the run and of how the turn went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from overnight.domain.limits import Spending, spent, turns_used_up
from overnight.domain.run import Run
from overnight.domain.spec import CompletionSpec
from overnight.domain.values import CompletedBy, Completion, Failure
from overnight.engine.policy import Timing

LONGEST_BACKOFF_S: Final = 300.0
"""No wait between two attempts is longer; where the backend names a later time, waiting is left to a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """How a turn went. With neither failure nor interruption it ended in order."""

    failure: Failure | None = None
    interrupted: bool = False
    """We ended it early on purpose."""
    met: Completion | None = None
    """The run's completion condition was seen."""
    abandoned: bool = False
    """Its agent is gone without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """The run is done."""

    completion: Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The run cannot go on."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTurn:
    """The next turn, after a rest."""

    rest_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The same turn once more, after a rest."""

    rest_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Go on with the n-th of `spec.fallback`."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The backend cannot be had now: a person has to look."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class AskBudget:
    """A budget is spent: a person raises it or ends the run."""

    spending: Spending


Step = Complete | Fail | NextTurn | Again | Fallback | Pause | AskBudget


def next_step(run: Run, result: TurnResult, *, now_ms: int, timing: Timing, more: bool = False) -> Step:
    """Decide. `run` has this turn's amounts in its stats and idle turns already; `more`: people have said what no turn
    has begun with yet.
    """
    if result.met is not None and run.spec.mode != "chat":
        return Complete(completion=result.met)
    if result.abandoned:
        return _after_abandoned(run)
    budget = _after_spent(run)
    if result.failure is not None:
        return _after_failure(run, result.failure, budget, now_ms, timing)
    if result.interrupted:
        return budget or NextTurn()
    after = _after_message if run.spec.mode == "chat" else _after_completed
    return after(run, budget, more=more)


def _after_message(run: Run, budget: Step | None, *, more: bool) -> Step:
    """A conversation is over for now when nothing more is to be said, whatever the agent thinks of it."""
    if not more:
        return Complete(completion=Completion(by="one_turn"))
    if turns_used_up(run.limits, run.stats):
        return Complete(completion=Completion(by="limit"))
    return budget or NextTurn()


def _after_completed(run: Run, budget: Step | None, *, more: bool) -> Step:
    if run.spec.mode == "oneshot":
        heard = not more or turns_used_up(run.limits, run.stats)
        return Complete(completion=Completion(by="one_turn")) if heard else budget or NextTurn()
    if turns_used_up(run.limits, run.stats):
        return _ended(run, "limit", f"the limit of {run.limits.turns} turns was reached")
    idle = run.spec.completion.idle_turns
    if idle and run.idle_turns >= idle:
        return _ended(run, "idle", f"{idle} turns changed nothing")
    return budget or NextTurn(rest_s=run.spec.loop_delay_s)


def _after_failure(run: Run, failure: Failure, budget: Step | None, now_ms: int, timing: Timing) -> Step:
    if budget is not None:
        return budget
    rest_s = _backoff_s(run.attempt, failure, now_ms, timing)
    if failure.retryable and run.attempt < run.limits.attempts and rest_s <= LONGEST_BACKOFF_S:
        return Again(rest_s=rest_s)
    if run.fallback < len(run.spec.fallback):
        return Fallback(index=run.fallback + 1)
    return Pause(failure=failure) if failure.retryable else Fail(failure=failure)


def _after_abandoned(run: Run) -> Step:
    if run.attempt < run.limits.attempts:
        return Again()
    message = f"turn {run.turn} was abandoned {run.attempt} times"
    return Fail(failure=Failure(code="attempts_exhausted", message=message))


def _after_spent(run: Run) -> Step | None:
    what = spent(run.limits, run.stats)
    if what is None:
        return None
    if run.limits.on_spent == "fail":
        return Fail(failure=Failure(code="budget_spent", message=f"the budget is spent: {what}"))
    if run.limits.on_spent == "finish":
        return _ended(run, "limit", f"the budget is spent: {what}")
    return AskBudget(spending=what)


def _ended(run: Run, by: CompletedBy, why: str) -> Step:
    if not has_condition(run.spec.completion):
        return Complete(completion=Completion(by=by))
    message = f"{why} and the run's completion condition was never seen"
    return Fail(failure=Failure(code="condition_not_met", message=message))


def has_condition(completion: CompletionSpec) -> bool:
    """Whether the caller named a condition. Everybody has the default stop file: it is a way out, not a condition."""
    return completion.pattern is not None or completion.stop_file not in {None, _DEFAULT.stop_file}


_DEFAULT: Final = CompletionSpec()


def _backoff_s(attempt: int, failure: Failure, now_ms: int, timing: Timing) -> float:
    rest = min(LONGEST_BACKOFF_S, timing.backoff_s * float(1 << min(attempt - 1, 20)))
    if failure.retry_at is None:
        return rest
    return max(rest, (failure.retry_at - now_ms) / 1000)
