"""A small history in which every promise is kept, for tests that break one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from overnight.testing.history import AgentLife, Entry, History, Verdict, check, digest
from overnight.testing.history.agents import Told
from overnight.testing.history.entries import (
    Closed,
    Connected,
    Controlled,
    Conversation,
    Cut,
    Decided,
    Fault,
    Leftover,
    Listed,
    Logged,
    Opened,
    Outcome,
    Posted,
    Probe,
    Received,
    Snapshot,
    StreamEnded,
    Submitted,
    Summed,
    TakenBack,
)

E = TypeVar("E")
DONE, STOPPED, ASKED, LEAVE, TALK = "run_done", "run_stopped", "run_asked", "run_leave", "run_talk"
SESSION = "ses_talk"
KEYS = {DONE: "key-1", STOPPED: "key-2", ASKED: "key-3", LEAVE: "key-5", TALK: ""}
SERVERS = ("s1", "s2")


def log(run_id: str, *told: tuple[Any, ...]) -> tuple[str, ...]:
    """Bodies of events given as (type,), (type, data) or (type, data, (turn, attempt))."""
    bodies = []
    for seq, (type, *more) in enumerate(told, 1):
        data: Mapping[str, object] = more[0] if more else {}
        turn, attempt = more[1] if len(more) > 1 else (None, None)
        at = f"2026-01-01T00:00:{seq:02}.000Z"
        event = {
            "seq": seq, "type": type, "run_id": run_id, "at": at, "turn": turn, "attempt": attempt, "data": data,
        }  # fmt: skip
        bodies.append(orjson.dumps(event).decode())
    return tuple(bodies)


def printed(name: str, *numbers: int) -> dict[str, object]:
    """The data of an `output.recorded` with those lines of a witness."""
    return {"stream": "stdout", "text": "".join(f"witness {name} {number}\n" for number in numbers)}


def goal(key: str) -> dict[str, object]:
    """The data of a `run.queued`."""
    return {"goal": plan(key)}


def plan(key: str) -> str:
    """What a witness is told that works on that job."""
    return f'witness {{"job": "{key}"}}'


def about(approval_id: str, item: str) -> dict[str, object]:
    """The data of an `approval.requested` for a tool call."""
    return {"approval_id": approval_id, "digest": "d1", "context": {"item_id": item}}


LOGS = {
    DONE: log(
        DONE,
        ("run.queued", goal("key-1")),
        ("run.started",),
        ("turn.started", {}, (1, 1)),
        ("output.recorded", printed("1.1.10", 1, 2), (1, 1)),
        ("turn.abandoned", {}, (1, 1)),
        ("run.recovered", {"adopted": False}, (1, 1)),
        ("turn.started", {}, (1, 2)),
        ("output.recorded", printed("1.2.11", 1, 2), (1, 2)),
        ("output.recorded", printed("1.2.11", 3), (1, 2)),
        ("turn.completed", {}, (1, 2)),
        ("run.completed", {"by": "one_turn"}, (1, 2)),
    ),
    STOPPED: log(
        STOPPED,
        ("run.queued", goal("key-2")),
        ("run.started",),
        ("turn.started", {}, (1, 1)),
        ("run.cancelling", {}, (1, 1)),
        ("turn.failed", {}, (1, 1)),
        ("run.cancelled", {"survivors": 0}, (1, 1)),
    ),
    ASKED: log(
        ASKED,
        ("run.queued", goal("key-3")),
        ("run.started",),
        ("turn.started", {}, (1, 1)),
        ("turn.completed", {}, (1, 1)),
        ("approval.requested", {"approval_id": "apr_1"}, (1, 1)),
        ("run.waiting", {}, (1, 1)),
        ("approval.resolved", {"approval_id": "apr_1", "option": "raise"}, (1, 1)),
        ("run.resumed", {}, (1, 1)),
        ("run.resumed", {}, (1, 1)),
        ("turn.started", {}, (2, 1)),
        ("turn.completed", {}, (2, 1)),
        ("approval.requested", {"approval_id": "apr_2"}, (2, 1)),
        ("run.waiting", {}, (2, 1)),
    ),
    LEAVE: log(
        LEAVE,
        ("run.queued", goal("key-5")),
        ("run.started",),
        ("turn.started", {}, (1, 1)),
        ("approval.requested", about("apr_3", "1.1.20-1"), (1, 1)),
        ("run.blocked", {}, (1, 1)),
        ("turn.abandoned", {}, (1, 1)),
        ("run.waiting", {}, (1, 1)),
        ("approval.resolved", {"approval_id": "apr_3", "option": "allow_once", "digest": "d1"}, (1, 1)),
        ("run.resumed", {}, (1, 1)),
        ("run.resumed", {}, (1, 1)),
        ("turn.started", {}, (1, 2)),
        ("message.completed", {"text": "witness 1.2.21 1"}, (1, 2)),
        ("approval.requested", about("apr_4", "1.2.21-2"), (1, 2)),
        ("run.blocked", {}, (1, 2)),
        ("approval.resolved", {"approval_id": "apr_4", "option": "reject_once", "digest": "d1"}, (1, 2)),
        ("run.resumed", {}, (1, 2)),
        ("turn.completed", {}, (1, 2)),
        ("run.completed", {"by": "one_turn"}, (1, 2)),
    ),
    TALK: log(
        TALK,
        ("run.queued", goal("msg-1")),
        ("run.started",),
        ("turn.started", {}, (1, 1)),
        ("turn.completed", {}, (1, 1)),
        ("turn.started", {}, (2, 1)),
        ("turn.completed", {}, (2, 1)),
        ("run.completed", {"by": "one_turn"}, (2, 1)),
    ),
}
"""One run done at the second attempt, one cancelled, one that waits for its second decision, one whose agent asked
leave and did not live to be answered, while the next asked twice, and one that answered two messages.
"""


def said(key: str, turn: int, run_id: str = TALK) -> str:
    """A message in the history of a session."""
    return orjson.dumps({"role": "user", "text": plan(key), "run_id": run_id, "turn": turn}).decode()


SAID = (said("msg-1", 1), said("msg-2", 2))


@dataclass
class Story:
    """The history in pieces that a test can change before it is judged."""

    entries: list[Entry]
    agents: list[AgentLife]
    logs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def change(self, kind: type[E], change: Callable[[E], E | None], nth: int = 0) -> None:
        """Replace the nth entry of a kind; None leaves it out."""
        places = [index for index, entry in enumerate(self.entries) if isinstance(entry, kind)]
        place = places[nth]
        changed = change(self.entries[place])  # type: ignore[arg-type]
        if changed is None:
            del self.entries[place]
        else:
            self.entries[place] = changed  # type: ignore[call-overload]

    def event(self, run_id: str, seq: int, /, **changes: object) -> None:
        """Another event in the log and in what every reader got."""
        bodies = list(self.logs[run_id])
        bodies[seq - 1] = orjson.dumps({**orjson.loads(bodies[seq - 1]), **changes}).decode()
        self.logs[run_id] = tuple(bodies)
        kept = [entry for entry in self.entries if not _of_log(entry, run_id)]
        self.entries = [*kept[:-1], *readings(run_id, tuple(bodies)), kept[-1]]

    def life(self, nth: int, **changes: Any) -> None:
        """Another life of the nth agent in `agents`."""
        self.agents[nth] = replace(self.agents[nth], **changes)

    def verdict(self) -> Verdict:
        """What the checker says."""
        return check(History(self.entries, sorted(self.agents, key=lambda life: life.began)))


def _of_log(entry: Entry, run_id: str) -> bool:
    kinds = Connected | Received | Cut | StreamEnded | Logged
    return isinstance(entry, kinds) and entry.run_id == run_id


def readings(run_id: str, bodies: tuple[str, ...]) -> list[Entry]:
    """Two readers, one of them cut off in the middle, and the log from two servers."""
    over = orjson.loads(bodies[-1])["type"] in {"run.completed", "run.failed", "run.cancelled"}
    found: list[Entry] = []
    for reader, cut_at in (("r1", len(bodies)), ("r2", 2)):
        found.append(Connected(at=1, reader=reader, run_id=run_id, after=0))
        for seq, body in enumerate(bodies, 1):
            if seq == cut_at + 1:
                found.append(Cut(at=2, reader=reader, run_id=run_id, why="the server was killed"))
                found.append(Connected(at=3, reader=reader, run_id=run_id, after=cut_at))
            found.append(Received(at=6, reader=reader, run_id=run_id, seq=seq, digest=digest(body)))
        if over:
            found.append(StreamEnded(at=4, reader=reader, run_id=run_id, last=len(bodies)))
    found += [Logged(at=9, server=server, run_id=run_id, bodies=bodies) for server in SERVERS]
    return found


def conversation() -> list[Entry]:
    """Two messages that were said, one that was taken back, one that was refused, and who followed the session."""
    found: list[Entry] = [
        Posted(at=2, session_id=SESSION, key="msg-1", outcome="unknown"),
        Posted(at=2, session_id=SESSION, key="msg-1", outcome="accepted", message_id="msg_1", run_id=TALK),
        Posted(at=3, session_id=SESSION, key="msg-2", outcome="accepted", message_id="msg_2", run_id=TALK),
        Posted(at=3, session_id=SESSION, key="msg-3", outcome="accepted", message_id="msg_3", run_id=TALK),
        Posted(at=3, session_id=SESSION, key="msg-4", outcome="refused", code="too_many_requests"),
        TakenBack(at=3, session_id=SESSION, key="msg-2", outcome="refused", code="message_taken"),
        TakenBack(at=3, session_id=SESSION, key="msg-3", outcome="accepted"),
    ]
    for reader, seqs in (("r1", (1, 2)), ("late", (1, 2, 3)), ("r2", (1, 2, 3))):
        found.append(Connected(at=3, reader=reader, run_id=SESSION, after=0))
        found += [Received(at=6, reader=reader, run_id=SESSION, seq=n, digest=f"d{n}") for n in seqs]
    return found


def summaries() -> list[Entry]:
    """What two readers got who watch all runs; one of them came in between."""
    shown = ((4, DONE, "running", 4), (9, DONE, "completed", 11), (12, STOPPED, "cancelled", 6),
             (15, LEAVE, "completed", 18), (20, TALK, "completed", 7), (21, ASKED, "waiting", 13))  # fmt: skip
    found: list[Entry] = [Connected(at=at, reader="o1", run_id="all runs", after=0) for at in (1, 2)]
    found += [
        Summed(at=6, reader=reader, change=change, run_id=run_id, state=state, last_seq=last_seq)
        for reader, first in (("o1", 0), ("o2", 1))
        for change, run_id, state, last_seq in shown[first:]
    ]
    return found


def story() -> Story:
    """Everything in order."""
    entries: list[Entry] = [
        Opened(at=0, seed=1, bound_s=30, servers=SERVERS),
        Submitted(at=1, key="key-1", outcome="unknown"),
        Submitted(at=2, key="key-1", outcome="accepted", run_id=DONE, turns=1),
        Submitted(at=2, key="key-2", outcome="accepted", run_id=STOPPED),
        Submitted(at=2, key="key-3", outcome="accepted", run_id=ASKED),
        Submitted(at=2, key="key-4", outcome="refused", code="disk_full"),
        Submitted(at=2, key="key-5", outcome="accepted", run_id=LEAVE),
        *conversation(),
        *summaries(),
        Fault(at=3, name="kill", phase="began", target="worker-1"),
        Fault(at=4, name="kill", phase="ended", target="worker-1"),
        Controlled(at=5, run_id=STOPPED, action="cancel", outcome="accepted"),
        decided(ASKED, "apr_1", "raise", "accepted", "raise"),
        decided(ASKED, "apr_1", "finish", "refused", "raise"),
        decided(LEAVE, "apr_3", "allow_once", "accepted", "allow_once"),
        decided(LEAVE, "apr_4", "reject_once", "unknown", None),
        Probe(at=6, during="full disk", tried="write", outcome="refused", status=507, code="disk_full"),
        Probe(at=6, during="full disk", tried="read", outcome="accepted", status=200),
        Probe(at=6, during="full disk", tried="cancel", outcome="accepted", status=202),
        Snapshot(at=6, run_id=DONE, state="running", last_seq=4),
        Snapshot(at=8, run_id=DONE, state="completed", last_seq=11),
        Snapshot(at=8, run_id=STOPPED, state="cancelled", last_seq=6),
        Snapshot(at=8, run_id=ASKED, state="waiting", last_seq=13, waits_for="apr_2"),
        Snapshot(at=8, run_id=LEAVE, state="completed", last_seq=18),
        Snapshot(at=8, run_id=TALK, state="completed", last_seq=7),
        Leftover(at=8, run_id=STOPPED, pids=()),
        *(Listed(at=9, server=server, runs=KEYS) for server in SERVERS),
        *(Conversation(at=9, server=server, session_id=SESSION, bodies=SAID) for server in SERVERS),
        *(entry for run_id, bodies in LOGS.items() for entry in readings(run_id, bodies)),
        Closed(at=10, settled=9),
    ]
    return Story(entries, agents(), dict(LOGS))


def decided(run_id: str, approval_id: str, option: str, outcome: Outcome, counts: str | None) -> Decided:
    """A decision that was sent at second 3."""
    return Decided(
        at=5, sent=3, run_id=run_id, approval_id=approval_id, option=option, outcome=outcome, counts=counts
    )


def agents() -> list[AgentLife]:
    """The lives of those runs; the first two of DONE, then STOPPED, ASKED, LEAVE and TALK."""
    life = AgentLife(run_id=DONE, turn=1, attempt=1, token=1, pid=10, began=1, seen=2.5, job="key-1")
    leave = replace(life, run_id=LEAVE, job="key-5", pid=20, asked=("1.1.20-1",))
    told = (
        Told(at=4.2, item="1.2.21-1", said="allow_once"),
        Told(at=4.5, item="1.2.21-2", said="reject_once"),
    )

    def whole(turn: int, began: float, **more: Any) -> AgentLife:
        return replace(
            life, turn=turn, token=turn, began=began, seen=began + 1, ended=began + 1, lines=0, **more
        )

    return [
        life,
        replace(life, attempt=2, token=2, pid=11, began=4, seen=5, ended=5, lines=3),
        replace(life, run_id=STOPPED, pid=12, seen=4, job="key-2"),
        whole(1, 1, run_id=ASKED, pid=13, job="key-3"),
        whole(2, 4, run_id=ASKED, pid=14, job="key-3"),
        leave,
        replace(
            leave, attempt=2, token=2, pid=21, began=4, seen=5, ended=5, lines=1, told=told,
            asked=("1.2.21-1", "1.2.21-2"),
        ),
        whole(1, 1, run_id=TALK, pid=30, job="msg-1"),
        whole(2, 4, run_id=TALK, pid=31, job="msg-2"),
    ]  # fmt: skip
