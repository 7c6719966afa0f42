"""Promise 2: one gap-free, increasing sequence of events, the same for every reader, resumable from any number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from overnight.testing.history.entries import Connected, Cut, Logged, Received, StreamEnded
from overnight.testing.history.model import ALL, SESSION, History, RunLog, Violation
from overnight.testing.history.recorder import digest

LATE = "late"
"""The name of readers that come when all is over."""


def check(history: History) -> Iterator[Violation]:
    """The logs themselves, then what each reader got of them."""
    for log in history.logs.values():
        yield from _numbers(log)
    yield from _servers_agree(history)
    yield from _Readers(history).check()


def _numbers(log: RunLog) -> Iterator[Violation]:
    seqs = [event["seq"] for event in log.events]
    if seqs != list(range(1, len(seqs) + 1)):
        wrong = next(index for index, seq in enumerate(seqs, 1) if seq != index)
        yield _broken(log.run_id, f"its log has {seqs[wrong - 1]} where {wrong} should be")
    strange = {event["run_id"] for event in log.events} - {log.run_id}
    if strange:
        yield _broken(log.run_id, f"its log holds events of {', '.join(map(str, strange))}")
    for one, two in pairwise(log.events):
        if str(two.get("at", "")) < str(one.get("at", "")):
            yield _broken(log.run_id, f"event {two['seq']} is of {two['at']}, the one before of {one['at']}")


def _servers_agree(history: History) -> Iterator[Violation]:
    for entry in history.of(Logged):
        log = history.logs[entry.run_id]
        if entry.bodies != log.bodies[: len(entry.bodies)]:
            seq = next(n for n, (a, b) in enumerate(zip(entry.bodies, log.bodies, strict=False), 1) if a != b)
            yield _broken(entry.run_id, f"event {seq} is another at {entry.server}")
        elif log.final is not None and len(entry.bodies) < len(log.bodies):
            yield _broken(
                entry.run_id, f"{entry.server} has {len(entry.bodies)} of its {len(log.bodies)} events"
            )


class _Readers:
    """Every reader's way along its run, entry by entry."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._next: dict[tuple[str, str], int] = {}
        self._tried: set[tuple[str, str]] = set()
        """Who has connected, or has tried to."""
        self._ended: set[tuple[str, str]] = set()
        self._digests = {log.run_id: [digest(body) for body in log.bodies] for log in history.logs.values()}
        self._heard: dict[tuple[str, int], str] = {}
        """Of sessions, whose logs nobody lists: what the first reader got for each seq."""

    def check(self) -> Iterator[Violation]:
        """Every frame that was received, and whether every reader was told the end."""
        for entry in self._history.entries:
            match entry:
                case Connected(run_id=run_id) | Cut(run_id=run_id) if run_id == ALL:
                    pass  # see `summaries`
                case Connected():
                    yield from self._connected(entry)
                case Received():
                    yield from self._received(entry)
                case StreamEnded():
                    yield from self._told_the_end(entry)
                case Cut():
                    self._tried.add((entry.reader, entry.run_id))
                case _:
                    pass
        yield from self._unread()

    def _unread(self) -> Iterator[Violation]:
        """Who was never told an end, and who came late to a session and was not told all of it."""
        for reader, run_id in sorted(self._tried - self._ended):
            log, has = self._history.logs.get(run_id), self._next.get((reader, run_id), 1) - 1
            if log is not None and log.final is not None:
                yield _broken(run_id, f"{reader} was never told its end")
            elif reader == LATE and has < self._history.heard.get(run_id, 0):
                yield _broken(run_id, f"{reader} has {has}, others {self._history.heard[run_id]}")
        read = {run_id for _, run_id in self._tried}
        for log in self._history.logs.values():
            if log.final is not None and log.run_id not in read:
                yield _broken(log.run_id, "nobody has read it")

    def _connected(self, entry: Connected) -> Iterator[Violation]:
        key = entry.reader, entry.run_id
        self._tried.add(key)
        wanted = self._next.setdefault(key, entry.after + 1)
        if wanted != entry.after + 1:
            yield _broken(entry.run_id, f"{entry.reader} has {wanted - 1} and came again with {entry.after}")

    def _received(self, entry: Received) -> Iterator[Violation]:
        key = entry.reader, entry.run_id
        wanted = self._next.get(key, 1)
        if entry.seq != wanted:
            yield _broken(entry.run_id, f"{entry.reader} got {entry.seq} where {wanted} should be")
        self._next[key] = entry.seq + 1
        if key in self._ended:
            yield _broken(entry.run_id, f"{entry.reader} got {entry.seq} after the end")
        if entry.run_id.startswith(SESSION):
            if self._heard.setdefault((entry.run_id, entry.seq), entry.digest) != entry.digest:
                yield _broken(entry.run_id, f"{entry.reader} got other bytes for {entry.seq} than others")
            return
        known = self._digests.get(entry.run_id, [])
        if not 0 < entry.seq <= len(known):
            yield _broken(entry.run_id, f"{entry.reader} got {entry.seq}, which the log does not have")
        elif known[entry.seq - 1] != entry.digest:
            yield _broken(entry.run_id, f"{entry.reader} got other bytes for {entry.seq} than the log has")

    def _told_the_end(self, entry: StreamEnded) -> Iterator[Violation]:
        key = entry.reader, entry.run_id
        self._ended.add(key)
        log = self._history.logs.get(entry.run_id)
        if log is None:
            return
        if log.final is None:
            yield _broken(entry.run_id, f"{entry.reader} was told the end of a run that has none")
        elif self._next.get(key, 1) <= len(log.bodies):
            has = self._next.get(key, 1) - 1
            yield _broken(entry.run_id, f"{entry.reader} was told the end at {has} of {len(log.bodies)}")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=2, subject=subject, words=words)
