"""How a turn went, told from how its process ended: pure."""

from __future__ import annotations

from typing import Final

from overnight.domain.values import Completion, Failure
from overnight.engine.next_step import TurnResult
from overnight.engine.turn_end import TurnEnd
from overnight.ports.backend import Ended

LIMITS: Final = {
    "deadline": ("turn_timeout", "the turn took longer than it may", True),
    "output_limit": ("output_limit", "the agent printed more than it may", False),
    "children_limit": ("children_limit", "the agent started more processes than it may", False),
}
"""What a keeper ends a turn for by itself: code, message, and whether trying again may help."""

LOST: Final = frozenset({"keeper_lost", "keeper_terminated"})
"""Failures that say nothing about the agent: whoever owned its process was killed."""


def result_of(end: TurnEnd, met: Completion | None) -> TurnResult:
    """The result of a turn that ended like this; `met` when the completion condition was seen after it."""
    if end.failure is not None:
        return TurnResult(failure=end.failure)
    ended = end.ended
    if ended is None or ended.cause == "fenced" or _code(ended) in LOST:
        return TurnResult(abandoned=True)
    if ended.cause in LIMITS:
        return TurnResult(failure=ended.outcome.failure or _limit(ended.cause))
    if ended.cause == "stopped":
        return TurnResult(interrupted=True, met=met)
    if ended.outcome.failure is not None:
        return TurnResult(failure=ended.outcome.failure)
    if met is None and ended.outcome.done:
        met = Completion(by="backend")
    return TurnResult(met=met)


def stop_reason_of(end: TurnEnd, result: TurnResult) -> str | None:
    """Why the agent stopped, for a turn that did not fail."""
    if result.failure is not None or result.abandoned or end.ended is None:
        return None
    if result.interrupted:
        return "cancelled" if end.granted == "cancel" else "interrupted"
    return end.ended.outcome.stop_reason


def _code(ended: Ended) -> str | None:
    return ended.outcome.failure.code if ended.outcome.failure else None


def _limit(cause: str) -> Failure:
    code, message, retryable = LIMITS[cause]
    return Failure(code=code, message=message, retryable=retryable)
