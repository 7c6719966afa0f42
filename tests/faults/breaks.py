"""Every way that we know of breaking a promise: what to change in a good history, and what is to be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.faults.story import (
    ASKED,
    DONE,
    LEAVE,
    LOGS,
    SAID,
    SESSION,
    STOPPED,
    TALK,
    Story,
    goal,
    printed,
    said,
)

from overnight.testing.history.agents import Told
from overnight.testing.history.entries import (
    Closed,
    Connected,
    Controlled,
    Conversation,
    Cut,
    Decided,
    Leftover,
    Listed,
    Logged,
    Posted,
    Probe,
    Received,
    Snapshot,
    StreamEnded,
    Submitted,
    Summed,
    TakenBack,
)

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


def told(*bodies: str) -> Break:
    """What both servers have of the conversation."""

    def change(it: Story) -> None:
        for nth in (0, 1):
            it.change(Conversation, lambda entry: replace(entry, bodies=bodies), nth)

    return change


def leave(*answers: tuple[str, str]) -> Break:
    """What the second agent of LEAVE was told, and about what."""
    return life(6, told=tuple(Told(at=4.2, item=item, said=option) for item, option in answers))


LISTING = {DONE: "key-1", STOPPED: "key-2", ASKED: "key-3", LEAVE: "key-5", TALK: ""}
FIRST, SECOND = SAID
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
    "an accepted cancel leaves its run waiting": (1, "it is not over", alter(Controlled, run_id=ASKED)),
    "an accepted pause leaves no trace": (
        1, "its pause was accepted", add(Controlled(at=5, run_id=DONE, action="pause", outcome="accepted")),
    ),
    "a refused cancel cancels": (1, "nobody's cancel", alter(Controlled, outcome="refused")),
    "two keys get one run": (1, "the answer to key-1 and to key-3", alter(Submitted, 3, run_id=DONE)),
    "a run does another's work": (1, "its goal is that of key-9", event(DONE, 1, data=goal("key-9"))),
    "an agent does another's work": (1, "worked on key-9", life(1, job="key-9")),
    "a run is listed twice": (1, "lists it more than once", alter(Listed, twice=(DONE,))),
    # 1: messages
    "an accepted message is never said": (1, "msg-2: it was accepted, and never said", told(FIRST)),
    "a message is said twice": (1, "it was said 2 times", told(FIRST, SECOND, said("msg-2", 3))),
    "a message is said that was taken back": (1, "was taken back, and said", told(*SAID, said("msg-3", 3))),
    "a message is said that was refused": (1, "was refused (too_many_requests)", told(*SAID, said("msg-4", 3))),
    "a message is not taken back, and not said": (
        1, "msg-3: it was accepted, and never said", alter(TakenBack, 1, outcome="refused"),
    ),
    "a message comes from nowhere": (1, "nobody posted it", told(*SAID, said("msg-9", 3))),
    "a message's outcome stays unknown": (
        1, "msg-9: its outcome was never", add(Posted(at=3, session_id=SESSION, key="msg-9", outcome="unknown")),
    ),
    "a key made two messages": (1, "several messages", alter(Posted, 0, outcome="accepted", message_id="msg_0")),
    "messages change places": (1, "said were msg-2, msg-1", told(SECOND, FIRST)),
    "two messages share a turn": (1, "no turn of its own", told(FIRST, said("msg-2", 1))),
    "a message is answered by a run that nobody knows": (
        1, "nobody knows run_x", told(FIRST, said("msg-2", 2, run_id="run_x")),
    ),
    "a message's turn is never completed": (
        1, "msg-2: it was answered 0 times", event(TALK, 6, type="turn.failed"),
    ),
    "a message is answered twice": (1, "msg-1: it was answered 2 times", life(8, job="msg-1")),
    "an agent answers another message": (1, "answered msg-1", life(8, job="msg-1")),
    "a run of a conversation is not listed": (
        1, "run_talk: it was accepted", alter(Listed, runs={key: LISTING[key] for key in LISTING if key != TALK}),
    ),
    "two servers tell two conversations": (1, "another conversation", alter(Conversation, 1, bodies=SAID[:1])),
    # 2: one sequence for everybody
    "the log has a hole": (2, "where 3 should be", event(DONE, 3, seq=4)),
    "the log holds another run's event": (2, "events of run_other", event(DONE, 3, run_id="run_other")),
    "two servers tell two logs": (2, "is another at s2", alter(Logged, 1, bodies=(*LOGS[DONE][:3], "{}"))),
    "a reader misses an event": (2, "got 6 where 5 should be", received("r1", DONE, 5, gone=True)),
    "a reader gets an event twice": (2, "got 5 where 6 should be", received("r1", DONE, 5, twice=True)),
    "a reader gets other bytes": (2, "other bytes", received("r2", DONE, 7, digest="00")),
    "a reader gets what is not in the log": (2, "the log does not have", add(LATE)),
    "a reader comes again with another cursor": (2, "came again with 1", alter(Connected, 7, after=1)),
    "a reader is never told the end": (2, "never told its end", drop(StreamEnded)),
    "a reader is told the end of a run that goes on": (
        2, "has none", add(StreamEnded(at=5, reader="r1", run_id=ASKED, last=13)),
    ),
    "a reader is told the end too early": (2, "told the end at 10 of 11", received("r1", DONE, 11, gone=True)),
    "time goes backwards": (2, "event 3 is of 2025", event(DONE, 3, at="2025-01-01T00:00:00.000Z")),
    "a server has less than others": (2, "s2 has 10 of its 11", alter(Logged, 1, bodies=LOGS[DONE][:10])),
    "nobody reads a run": (
        2, "nobody has read it",
        lambda it: setattr(it, "entries", [
            e for e in it.entries if not (isinstance(e, Connected | Received | Cut | StreamEnded) and e.run_id == DONE)
        ]),
    ),
    "a reader never gets a stream": (
        2, "r9 was never told its end", add(Cut(at=5, reader="r9", run_id=DONE, why="status 404")),
    ),
    "a reader of a session misses an event": (
        2, "r1 got 2 where 1 should be", received("r1", SESSION, 1, gone=True),
    ),
    "a reader of a session gets other bytes": (
        2, "other bytes for 2 than others", received("r2", SESSION, 2, digest="00"),
    ),
    "a late reader does not get all of a session": (2, "late has 2, others 3", received("late", SESSION, 3, gone=True)),
    "a watcher of all misses an end": (2, "o1 knows it as running", drop(Summed, 1)),
    "a watcher of all never hears of a run": (2, "o2 knows it not at all", drop(Summed, 6)),
    "a watcher of all gets changes out of order": (2, "got change 9 after 30", alter(Summed, 0, change=30)),
    "a watcher of all is shown what was before": (2, "saw it at 12, then at 11", alter(Summed, 0, last_seq=12)),
    # 3: one executor
    "an agent finds another alive": (3, "found another one alive", life(1, clashed=True)),
    "two agents' lives overlap": (3, "lived at once", life(0, seen=4.2)),
    "a token is used twice": (3, "whose hold was lost", life(1, token=1)),
    "a token falls": (3, "has token 2 after 5", life(0, token=5)),
    "an attempt is made twice": (3, "was started after", life(1, attempt=1)),
    "an agent that no log tells of": (3, "tells nothing of that turn", life(2, turn=2)),
    "a dead hold writes on": (3, "was settled before", event(DONE, 8, attempt=1)),
    "an agent outlives its turn": (3, "after turn.abandoned", life(5, seen=6.5)),
    "an agent outlives its run": (3, "after turn.failed", life(2, seen=7)),
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
    "deciders are told what the log does not say": (
        4, "raise was accepted, and the log says finish",
        event(ASKED, 7, data={"approval_id": "apr_1", "option": "finish"}),
    ),
    "another action is decided than was shown": (
        4, "of another action than was shown",
        event(LEAVE, 8, data={"approval_id": "apr_3", "option": "allow_once", "digest": "d9"}),
    ),
    "nobody has decided": (4, "nobody's word", alter(Decided, 3, outcome="refused")),
    "a question outlives its run": (4, "still open", event(LEAVE, 15, type="file.read")),
    "a question is asked twice": (
        4, "asks about 1.1.20-1 once more",
        event(LEAVE, 5, type="approval.requested",
              data={"approval_id": "apr_9", "context": {"item_id": "1.1.20-1"}}),
    ),
    "an agent is told something else": (
        4, "was told allow_once, the log says reject_once",
        leave(("1.2.21-1", "reject_once"), ("1.2.21-2", "allow_once")),
    ),
    "an agent is told what is not decided yet": (4, "before anybody decided", alter(Decided, 3, sent=5)),
    "an agent is told twice": (
        4, "was answered 2 times", leave(("1.2.21-2", "reject_once"), ("1.2.21-2", "reject_once")),
    ),
    "an agent is told without having asked": (4, "had not asked", leave(("1.2.21-7", "reject_once"))),
    "leave is used twice": (
        4, "its agents had it 2 times",
        lambda it: it.life(5, told=(Told(at=2, item="1.1.20-1", said="allow_once"),)),
    ),
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
    "a turn is completed that no agent ended": (6, "no agent came to the end of it", life(1, ended=None)),
    "a run is completed too early": (6, "after 1 turns, not 2", alter(Submitted, 1, turns=2)),
    "a run fails by itself": (
        6, "it has failed (internal)", event(DONE, 11, type="run.failed", data={"code": "internal"}),
    ),
    "a line of another run": (6, "which was none of its own", event(DONE, 9, data=printed("1.2.31", 1))),
    "a line that was said is lost": (
        6, "printed 1 lines, the log has 0", event(LEAVE, 12, data={"text": "something else"}),
    ),
    "a run waits for what is decided": (6, "waits for apr_1", alter(Snapshot, 3, waits_for="apr_1")),
    "a run waits for another's question": (6, "waits for apr_3", alter(Snapshot, 3, waits_for="apr_3")),
    "the last snapshot is old": (6, "is of event 6, the log has 13", alter(Snapshot, 3, last_seq=6)),
    "a server does not know a run": (6, "knows event 0", alter(Snapshot, 0, state="missing", last_seq=0)),
    # 7: a full disk
    "a refusal says nothing": (7, "without a code", alter(Probe, status=500, code=None)),
    "reads stop": (7, "it was refused", alter(Probe, 1, outcome="refused", status=500)),
    "cancels stop": (7, "a cancel during a full disk", alter(Probe, 2, outcome="refused", status=503)),
    # the recording itself
    "a server gives no list": (0, "gave no list", drop(Listed)),
    "a server gives no log": (0, "s2 did not give its log", drop(Logged, 1)),
    "a server tells no conversation": (0, "s1 did not give its history", drop(Conversation)),
    "the recording broke off": (0, "broke off", drop(Closed)),
}  # fmt: skip
