"""The checker finds every way of breaking a promise: each test breaks a good history in one place."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.breaks import BREAKS
from tests.faults.story import DONE, story

from overnight.domain.states import TRANSITIONS, Input
from overnight.testing.history import History, Recorder, check, read_entries, walk
from overnight.testing.history.agents import lives
from overnight.testing.history.walk import MOVES


def test_a_good_history_is_good() -> None:
    verdict = story().verdict()
    assert verdict.violations == ()
    assert verdict.figures["runs"] == 5
    assert verdict.figures["unknown"] == 1
    assert (verdict.figures["messages"], verdict.figures["decisions"]) == (3, 2)


def test_a_history_comes_back_from_its_file(tmp_path: Path) -> None:
    path, told = tmp_path / "history.jsonl", story()
    with Recorder(path) as recorder:
        for entry in told.entries:
            recorder.add(entry)
    with path.open("ab") as file:
        file.write(b'{"kind":"closed","a')  # a line that was cut off by a crash
    assert list(read_entries(path)) == told.entries
    assert check(History(read_entries(path), told.agents)).good


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_found(name: str) -> None:
    promise, words, breaking = BREAKS[name]
    told = story()
    breaking(told)
    found = [v for v in told.verdict().violations if v.promise == promise]
    assert any(words in str(violation) for violation in found), told.verdict()


def test_every_promise_that_a_history_can_show_is_broken_by_some_test() -> None:
    assert {promise for promise, _, _ in BREAKS.values()} == set(range(8))


EVENT_OF = {
    Input.CLAIM: ("run.started", "run.resumed"), Input.PAUSE: ("run.pausing", "run.paused"),
    Input.RESUME: ("run.resumed",), Input.RESUME_WAITING: ("run.waiting",), Input.TURN_SETTLED: ("run.paused",),
    Input.BLOCK: ("run.blocked",), Input.WAIT: ("run.waiting",), Input.DECIDE: ("run.resumed",),
    Input.PARK: ("run.waiting",), Input.CONTINUE: ("run.resumed",), Input.FINISH: ("run.completed",),
    Input.COMPLETE: ("run.completed",), Input.FAIL: ("run.failed",),
    Input.CANCEL: ("run.cancelling", "run.cancelled"), Input.TREE_GONE: ("run.cancelled",),
    Input.ADOPT: ("run.recovered",), Input.HAND_BACK: ("run.requeued", "run.paused", "run.waiting"),
}  # fmt: skip


def test_the_second_opinion_on_moves_agrees_with_the_state_table() -> None:
    """Made from the events alone, it must know every move of the table, and no other."""
    table = {(s.value, t.value) for s, row in TRANSITIONS.items() for t in row.values()}
    walked = {(s, t) for row in MOVES.values() for s, t in row.items() if s is not None}
    assert walked == table
    for state, row in TRANSITIONS.items():
        for input, target in row.items():
            assert any(MOVES[type].get(state.value) == target.value for type in EVENT_OF[input]), (
                state,
                input,
            )


def test_a_cancel_that_nobody_could_watch_may_leave_its_turn_open() -> None:
    events = [
        {"seq": 1, "type": "run.queued", "turn": None, "attempt": None, "data": {}},
        {"seq": 2, "type": "run.started", "turn": None, "attempt": None, "data": {}},
        {"seq": 3, "type": "turn.started", "turn": 1, "attempt": 1, "data": {}},
        {"seq": 4, "type": "run.cancelling", "turn": 1, "attempt": 1, "data": {}},
        {"seq": 5, "type": "run.cancelled", "turn": 1, "attempt": 1, "data": {"survivors": None}},
    ]
    assert walk(events).faults == ()


def test_lives_are_put_together_from_the_record() -> None:
    me = {"run": DONE, "turn": 1, "attempt": 1, "token": 4, "pid": 10}
    (found,) = lives(
        [
            {"what": "began", "at": 1.0, **me},
            {"what": "clash", "at": 1.1, **me},
            {"what": "beat", "at": 2.0, **me},
            {"what": "ended", "at": 3.0, "lines": 7, **me},
        ]
    )
    assert (found.began, found.seen, found.ended, found.lines) == (1.0, 3.0, 3.0, 7)
    assert found.clashed
    assert (found.token, found.name) == (4, "1.1.10")
