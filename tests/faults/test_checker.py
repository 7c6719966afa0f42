"""The checker finds every way of breaking a promise: each test breaks a good history in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.faults.story import ASKED, DONE, LOGS, STOPPED, Story, printed, story

from overnight.domain.states import TRANSITIONS, Input
from overnight.testing.history import History, Recorder, check, read_entries, walk
from overnight.testing.history.agents import lives
from overnight.testing.history.entries import (
    Closed,
    Connected,
    Controlled,
    Decided,
    Leftover,
    Listed,
    Logged,
    Probe,
    Received,
    Snapshot,
    StreamEnded,
    Submitted,
)
from overnight.testing.history.walk import MOVES


def test_a_good_history_is_good() -> None:
    verdict = story().verdict()
    assert verdict.violations == ()
    assert verdict.figures["runs"] == 3
    assert verdict.figures["unknown"] == 1


def test_a_history_comes_back_from_its_file(tmp_path: Path) -> None:
    path, told = tmp_path / "history.jsonl", story()
    with Recorder(path) as recorder:
        for entry in told.entries:
            recorder.add(entry)
    with path.open("ab") as file:
        file.write(b'{"kind":"closed","a')  # a line that was cut off by a crash
    assert list(read_entries(path)) == told.entries
    assert check(History(read_entries(path), told.agents)).good


Break = Callable[[Story], object]


def drop(kind: type, nth: int = 0) -> Break:
    return lambda it: it.change(kind, lambda _: None, nth)


def alter(kind: type, nth: int = 0, **changes: object) -> Break:
    return lambda it: it.change(kind, lambda entry: replace(entry, **changes), nth)


def forget(run_id: str) -> Break:
    def change(it: Story) -> None:
        it.entries = [e for e in it.entries if not (isinstance(e, Logged) and e.run_id == run_id)]

    return change


def add(*entries: object) -> Break:
    return lambda it: it.entries.__setitem__(slice(-1, -1), list(entries))  # type: ignore[arg-type]


def received(reader: str, run_id: str, seq: int, **changes: Any) -> Break:
    """Change what that reader got for that seq; `gone` leaves it out."""

    def change(it: Story) -> None:
        place = next(
            index
            for index, entry in enumerate(it.entries)
            if isinstance(entry, Received)
            and (entry.reader, entry.run_id, entry.seq) == (reader, run_id, seq)
        )
        if changes.get("gone"):
            del it.entries[place]
        elif changes.get("twice"):
            it.entries.insert(place, it.entries[place])
        else:
            it.entries[place] = replace(it.entries[place], **changes)

    return change


def life(nth: int, **changes: object) -> Break:
    return lambda it: it.life(nth, **changes)


def event(run_id: str, seq: int, /, **changes: object) -> Break:
    return lambda it: it.event(run_id, seq, **changes)


LISTING = {DONE: "key-1", STOPPED: "key-2", ASKED: "key-3"}
LATE = Received(at=5, reader="r1", run_id=DONE, seq=12, digest="")

BREAKS: dict[str, tuple[int, str, Break]] = {
    # 1: accepted work is never lost
    "an accepted run is gone": (1, "nobody knows it", forget(STOPPED)),
    "an accepted run is not listed": (1, "does not list it", alter(Listed, runs={DONE: "key-1"})),
    "a refused run was made": (1, "was refused", alter(Listed, runs={**LISTING, "run_x": "key-4"})),
    "a key made two runs": (1, "several runs", alter(Submitted, 2, key="key-1")),
    "an unknown outcome stays unknown": (
        1, "never found out", add(Submitted(at=3, key="key-9", outcome="unknown")),
    ),
    "a run comes from nowhere": (1, "nobody submitted", alter(Listed, runs={**LISTING, "run_x": "key-x"})),
    "an accepted cancel is forgotten": (1, "its cancel was accepted", alter(Controlled, run_id=DONE)),
    # 2: one sequence for everybody
    "the log has a hole": (2, "where 3 should be", event(DONE, 3, seq=4)),
    "the log holds another run's event": (2, "events of run_other", event(DONE, 3, run_id="run_other")),
    "two servers tell two logs": (2, "is another at s2", alter(Logged, 1, bodies=(*LOGS[DONE][:3], "{}"))),
    "a reader misses an event": (2, "got 6 where 5 should be", received("r1", DONE, 5, gone=True)),
    "a reader gets an event twice": (2, "got 5 where 6 should be", received("r1", DONE, 5, twice=True)),
    "a reader gets other bytes": (2, "other bytes", received("r2", DONE, 7, digest="00")),
    "a reader gets what is not in the log": (2, "the log does not have", add(LATE)),
    "a reader comes again with another cursor": (2, "came again with 1", alter(Connected, 2, after=1)),
    "a reader is never told the end": (2, "never told its end", drop(StreamEnded)),
    "a reader is told the end of a run that goes on": (
        2, "has none", add(StreamEnded(at=5, reader="r1", run_id=ASKED, last=13)),
    ),
    "a reader is told the end too early": (2, "told the end at 10 of 11", received("r1", DONE, 11, gone=True)),
    # 3: one executor
    "an agent finds another alive": (3, "found another one alive", life(1, clashed=True)),
    "two agents' lives overlap": (3, "lived at once", life(0, seen=4.2)),
    "a token is used twice": (3, "whose hold was lost", life(1, token=1)),
    "a token falls": (3, "has token 2 after 5", life(0, token=5)),
    "an attempt is made twice": (3, "was started after", life(1, attempt=1)),
    "an agent that no log tells of": (3, "tells nothing of that turn", life(2, turn=2)),
    "a dead hold writes on": (3, "was settled before", event(DONE, 8, attempt=1)),
    # 4: decided once
    "two decisions are accepted": (4, "was decided as", alter(Decided, 1, outcome="accepted")),
    "deciders are told different things": (4, "were told", alter(Decided, 1, counts="finish")),
    "an accepted decision is not the one that counts": (4, "the log says raise", alter(Decided, option="finish")),
    "an accepted decision is lost": (4, "does not know of it", alter(Decided, approval_id="apr_2")),
    "an approval is decided again": (
        4, "decides it once more",
        event(ASKED, 12, type="approval.resolved", data={"approval_id": "apr_1", "option": "finish"}),
    ),
    "an approval that nobody asked": (4, "nobody had asked", event(ASKED, 5, data={"approval_id": "apr_7"})),
    # 5: nothing is left
    "a process outlives its run": (5, "12 live", alter(Leftover, pids=(12,))),
    "a cancel admits survivors": (5, "2 survivors", event(STOPPED, 6, data={"survivors": 2})),
    # 6: every run ends, by legal moves
    "a run is left running": (6, "is running in the end", alter(Snapshot, 1, state="running", last_seq=4)),
    "a run waits for nothing": (6, "waits for nothing", alter(Snapshot, 3, waits_for=None)),
    "nobody looked in the end": (6, "nobody looked", drop(Snapshot, 2)),
    "a snapshot contradicts the log": (6, "a snapshot says queued", alter(Snapshot, 0, state="queued")),
    "a snapshot is ahead of the log": (6, "a snapshot knows event", alter(Snapshot, 1, last_seq=12)),
    "an illegal move": (6, "in a run that is queued", event(DONE, 2, type="run.completed")),
    "events after the end": (6, "comes after the end", event(DONE, 10, type="run.failed")),
    "a turn is completed twice": (6, "completed twice", event(ASKED, 11, turn=1)),
    "a turn begins while one is open": (6, "is open", event(DONE, 5, type="file.read")),
    "a completed turn is done again": (6, "although it was completed", event(ASKED, 10, turn=1, attempt=2)),
    "a run ends with an open turn": (6, "ended with turn 1.2 open", event(DONE, 10, type="file.read")),
    "a line is lost": (6, "printed 3 lines, the log has 2", event(DONE, 9, data=printed("1.2.11"))),
    "a line is repeated": (6, "2 stands where 3", event(DONE, 9, data=printed("1.2.11", 2, 3))),
    "lines change places": (6, "not each there once", event(DONE, 8, data=printed("1.2.11", 2, 1))),
    "it takes too long": (6, "after the last fault or submission, not 30", alter(Closed, at=99, settled=98)),
    "it never ends": (6, "still under way", alter(Closed, settled=None)),
    # 7: a full disk
    "a refusal says nothing": (7, "without a code", alter(Probe, status=500, code=None)),
    "reads stop": (7, "it was refused", alter(Probe, 1, outcome="refused", status=500)),
    # the recording itself
    "the recording broke off": (0, "broke off", drop(Closed)),
}  # fmt: skip


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
