"""What follows a turn, as a table; and the verdict on how a process ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.rig import HOST

from overnight.domain.documents import checked
from overnight.domain.run import Run
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.domain.values import Completion, Failure, Stats, Usage
from overnight.engine.next_step import (
    LONGEST_BACKOFF_S,
    Again,
    AskBudget,
    Complete,
    Fail,
    Fallback,
    NextTurn,
    Pause,
    TurnResult,
    next_step,
)
from overnight.engine.policy import Timing
from overnight.engine.turn_end import TurnEnd
from overnight.engine.verdict import result_of, stop_reason_of
from overnight.ids import RunId, SessionId
from overnight.ports.backend import Ended, Stopped

NOW = 1_790_000_000_000
BUSY = Failure(code="busy", message="later", retryable=True)
WRONG = Failure(code="wrong", message="never")
MET = Completion(by="pattern", line="DONE")


def run(*, turns: int = 1, tokens: int = 0, **changes: Any) -> Run:
    spec = checked(RunSpec, {"goal": "x", "backend": "fake", **changes.pop("spec", {})})
    return replace(
        Run(
            pk=1,
            id=RunId("run_0"),
            owner="usr_local",
            state=State.RUNNING,
            spec=spec,
            session_pk=2,
            session_id=SessionId("ses_0"),
            host_id=HOST,
            workspace=None,
            created_at=NOW,
            updated_at=NOW,
            turn=1,
            stats=Stats(turns=turns, usage=Usage(input=tokens)),
        ),
        **changes,
    )


def step(found: Run, **result: Any) -> Any:
    return next_step(found, TurnResult(**result), now_ms=NOW, timing=Timing())


SPENT: dict[str, Any] = {"spec": {"limits": {"tokens": 5}}, "tokens": 5}


@pytest.mark.parametrize(
    "given, result, expected",
    [
        ({}, {}, NextTurn()),
        ({"spec": {"loop_delay_s": 7}}, {}, NextTurn(rest_s=7)),
        ({"spec": {"loop_delay_s": 7}}, {"interrupted": True}, NextTurn()),
        ({}, {"met": MET}, Complete(completion=MET)),
        ({}, {"met": MET, "interrupted": True}, Complete(completion=MET)),
        ({"spec": {"mode": "oneshot"}}, {}, Complete(completion=Completion(by="one_turn"))),
        ({"spec": {"mode": "oneshot"}}, {"interrupted": True}, NextTurn()),
        ({"spec": {"limits": {"turns": 1}}}, {}, Complete(completion=Completion(by="limit"))),
        ({"spec": {"limits": {"turns": 1}}}, {"interrupted": True}, NextTurn()),
        ({"idle_turns": 3}, {}, Complete(completion=Completion(by="idle"))),
        ({"idle_turns": 3, "spec": {"completion": {"idle_turns": 0}}}, {}, NextTurn()),
        ({}, {"failure": BUSY}, Again(rest_s=2.0)),
        ({"attempt": 2}, {"failure": BUSY}, Again(rest_s=4.0)),
        ({"attempt": 3}, {"failure": BUSY}, Pause(failure=BUSY)),
        ({"attempt": 3, "spec": {"fallback": ["b"]}}, {"failure": BUSY}, Fallback(index=1)),
        ({"spec": {"fallback": ["b", "c"]}, "fallback": 1}, {"failure": WRONG}, Fallback(index=2)),
        ({"spec": {"fallback": ["b"]}, "fallback": 1}, {"failure": WRONG}, Fail(failure=WRONG)),
        ({}, {"failure": WRONG}, Fail(failure=WRONG)),
        ({}, {"abandoned": True}, Again()),
    ],
)
def test_what_follows(given: dict[str, Any], result: dict[str, Any], expected: object) -> None:
    assert step(run(**given), **result) == expected


@pytest.mark.parametrize("result", [{}, {"failure": BUSY}, {"interrupted": True}])
def test_a_spent_budget_comes_before_another_try(result: dict[str, Any]) -> None:
    found = step(run(**SPENT), **result)
    assert isinstance(found, AskBudget)
    assert found.spending.part >= 1


def test_a_later_reset_than_we_wait_for_is_left_to_a_person() -> None:
    soon = replace(BUSY, retry_at=NOW + 60_000)
    assert step(run(), failure=soon) == Again(rest_s=60.0)
    late = replace(BUSY, retry_at=NOW + round(LONGEST_BACKOFF_S * 1000) + 1)
    assert step(run(), failure=late) == Pause(failure=late)


@given(
    attempt=st.integers(1, 100),
    fallback=st.integers(0, 2),
    retryable=st.booleans(),
    retry_in=st.none() | st.integers(-(10**9), 10**9),
)
def test_failures_always_come_to_an_end(
    attempt: int, fallback: int, retryable: bool, retry_in: int | None
) -> None:
    found = run(attempt=attempt, fallback=fallback, spec={"fallback": ["b", "c"]})
    failure = Failure(
        code="x", message="x", retryable=retryable, retry_at=None if retry_in is None else NOW + retry_in
    )
    match step(found, failure=failure):
        case Again(rest_s=rest):
            assert retryable
            assert attempt < found.limits.attempts
            assert 0 < rest <= LONGEST_BACKOFF_S
        case Fallback(index=index):
            assert index == fallback + 1
        case Pause():
            assert retryable
            assert fallback == 2
        case Fail():
            assert not retryable
            assert fallback == 2
        case other:
            raise AssertionError(other)


def ended(cause: Any = "exit", failure: Failure | None = None, **outcome: Any) -> Ended:
    reason = None if failure else outcome.pop("stop_reason", "end_turn")
    return Ended(
        outcome=TurnOutcome(stop_reason=reason, failure=failure, **outcome),
        stopped=None if cause == "exit" else Stopped(),
        cause=cause,
    )


@pytest.mark.parametrize(
    "end, result, reason",
    [
        (TurnEnd(ended=ended()), TurnResult(), "end_turn"),
        (TurnEnd(ended=ended(done=True)), TurnResult(met=Completion(by="backend")), "end_turn"),
        (TurnEnd(ended=ended(failure=BUSY)), TurnResult(failure=BUSY), None),
        (TurnEnd(ended=ended("stopped"), granted="pause"), TurnResult(interrupted=True), "interrupted"),
        (TurnEnd(ended=ended("stopped"), granted="cancel"), TurnResult(interrupted=True), "cancelled"),
        (TurnEnd(ended=ended("stopped")), TurnResult(interrupted=True), "interrupted"),
        (TurnEnd(ended=ended(), granted="pause"), TurnResult(), "end_turn"),
        (TurnEnd(ended=ended("fenced")), TurnResult(abandoned=True), None),
        (TurnEnd(ended=None), TurnResult(abandoned=True), None),
        (TurnEnd(ended=ended("stopped"), failure=WRONG), TurnResult(failure=WRONG), None),
        (
            TurnEnd(ended=ended(failure=Failure(code="keeper_lost", message="", retryable=True))),
            TurnResult(abandoned=True),
            None,
        ),
    ],
)
def test_the_verdict(end: TurnEnd, result: TurnResult, reason: str | None) -> None:
    found = result_of(end, None)
    assert found == result
    assert stop_reason_of(end, found) == reason


@pytest.mark.parametrize(
    "cause, code, retryable",
    [
        ("deadline", "turn_timeout", True),
        ("output_limit", "output_limit", False),
        ("children_limit", "children_limit", False),
    ],
)
def test_what_a_keeper_ends_a_turn_for_is_a_failure(cause: str, code: str, retryable: bool) -> None:
    failure = result_of(TurnEnd(ended=ended(cause)), None).failure
    assert failure is not None
    assert (failure.code, failure.retryable) == (code, retryable)
