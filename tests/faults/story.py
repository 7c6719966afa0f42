"""A small history in which every promise is kept, for tests that break one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from overnight.testing.history import AgentLife, Entry, History, Verdict, check, digest
from overnight.testing.history.entries import (
    Closed,
    Connected,
    Controlled,
    Cut,
    Decided,
    Fault,
    Leftover,
    Listed,
    Logged,
    Opened,
    Probe,
    Received,
    Snapshot,
    StreamEnded,
    Submitted,
)

E = TypeVar("E")
DONE, STOPPED, ASKED = "run_done", "run_stopped", "run_asked"
KEYS = {DONE: "key-1", STOPPED: "key-2", ASKED: "key-3"}


def log(run_id: str, *told: tuple[Any, ...]) -> tuple[str, ...]:
    """Bodies of events given as (type,), (type, data) or (type, data, (turn, attempt))."""
    bodies = []
    for seq, (type, *more) in enumerate(told, 1):
        data: Mapping[str, object] = more[0] if more else {}
        turn, attempt = more[1] if len(more) > 1 else (None, None)
        event = {"seq": seq, "type": type, "run_id": run_id, "turn": turn, "attempt": attempt, "data": data}
        bodies.append(orjson.dumps(event).decode())
    return tuple(bodies)


def printed(name: str, *numbers: int) -> dict[str, object]:
    """The data of an `output.recorded` with those lines of a witness."""
    return {"stream": "stdout", "text": "".join(f"witness {name} {number}\n" for number in numbers)}


LOGS = {
    DONE: log(
        DONE,
        ("run.queued",),
        ("run.started",),
        ("turn.started", {}, (1, 1)),
        ("output.recorded", printed("1.1.10", 1, 2), (1, 1)),
        ("turn.abandoned", {}, (1, 1)),
        ("run.recovered", {"adopted": False}, (1, 1)),
        ("turn.started", {}, (1, 2)),
        ("output.recorded", printed("1.2.11", 1, 2), (1, 2)),
        ("output.recorded", printed("1.2.11", 3), (1, 2)),
        ("turn.completed", {}, (1, 2)),
        ("run.completed", {}, (1, 2)),
    ),
    STOPPED: log(
        STOPPED,
        ("run.queued",),
        ("run.started",),
        ("turn.started", {}, (1, 1)),
        ("run.cancelling", {}, (1, 1)),
        ("turn.failed", {}, (1, 1)),
        ("run.cancelled", {"survivors": 0}, (1, 1)),
    ),
    ASKED: log(
        ASKED,
        ("run.queued",),
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
}
"""One run done at the second attempt, one cancelled, one that waits for its second decision."""


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
        """Another life of the nth agent."""
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
            found.append(Received(at=3, reader=reader, run_id=run_id, seq=seq, digest=digest(body)))
        if over:
            found.append(StreamEnded(at=4, reader=reader, run_id=run_id, last=len(bodies)))
    found += [Logged(at=9, server=server, run_id=run_id, bodies=bodies) for server in ("s1", "s2")]
    return found


def story() -> Story:
    """Everything in order."""
    entries: list[Entry] = [
        Opened(at=0, seed=1, bound_s=30),
        Submitted(at=1, key="key-1", outcome="unknown"),
        Submitted(at=2, key="key-1", outcome="accepted", run_id=DONE),
        Submitted(at=2, key="key-2", outcome="accepted", run_id=STOPPED),
        Submitted(at=2, key="key-3", outcome="accepted", run_id=ASKED),
        Submitted(at=2, key="key-4", outcome="refused", code="disk_full"),
        Fault(at=3, name="kill", phase="began", target="worker-1"),
        Fault(at=4, name="kill", phase="ended", target="worker-1"),
        Controlled(at=5, run_id=STOPPED, action="cancel", outcome="accepted"),
        Decided(at=5, run_id=ASKED, approval_id="apr_1", option="raise", outcome="accepted", counts="raise"),
        Decided(at=5, run_id=ASKED, approval_id="apr_1", option="finish", outcome="refused", counts="raise"),
        Probe(at=6, during="full disk", tried="write", outcome="refused", status=507, code="disk_full"),
        Probe(at=6, during="full disk", tried="read", outcome="accepted", status=200),
        Snapshot(at=6, run_id=DONE, state="running", last_seq=4),
        Snapshot(at=8, run_id=DONE, state="completed", last_seq=11),
        Snapshot(at=8, run_id=STOPPED, state="cancelled", last_seq=6),
        Snapshot(at=8, run_id=ASKED, state="waiting", last_seq=13, waits_for="apr_2"),
        Leftover(at=8, run_id=STOPPED, pids=()),
        Listed(at=9, server="s1", runs=KEYS),
        *(entry for run_id, bodies in LOGS.items() for entry in readings(run_id, bodies)),
        Closed(at=10, settled=9),
    ]
    life = AgentLife(run_id=DONE, turn=1, attempt=1, token=1, pid=10, began=1, seen=2.5)
    lives = [
        life,
        replace(life, attempt=2, token=2, pid=11, began=4, seen=5, ended=5, lines=3),
        replace(life, run_id=STOPPED, pid=12, seen=4),
    ]
    return Story(entries, lives, dict(LOGS))
