"""Drives the peers' programs from outside: how fast they take and carry out jobs, and what a kill costs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.testing.signals import wait_until

HERE: Final = Path(__file__).parent
START_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a job has said in the log of its worker, by the machine's monotonic clock."""

    what: str
    number: int
    asked: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """What a kill -9 of the worker did to its jobs, with a new worker started at once."""

    twice_started: int
    twice_ended: int
    open: int
    """Jobs that had not ended when the waiting was over."""
    back_s: float | None
    """From the kill until the last job that was under way then had ended; None: not while we waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One queue at one address, whose database is its own."""

    name: str
    url: str
    python: Path
    folder: Path

    def setup(self) -> None:
        """Make its tables."""
        self._call("setup")

    def enqueue(self, count: int, clients: int, pace_s: float = 0.0) -> float:
        """Jobs a second."""
        found = json.loads(self._call("enqueue", str(count), str(clients), str(pace_s)).splitlines()[-1])
        return float(found["count"]) / float(found["seconds"])

    @contextmanager
    def worker(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process; killed at the end."""
        process = self.start(log)
        try:
            yield process
        finally:
            kill(process)

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """A worker in a process group of its own, whose jobs write to `log`."""
        log.touch()
        argv = [str(self.python), str(HERE / f"{self.name}_peer.py"), "work", self.url, str(log)]
        with (self.folder / f"{self.name}.out").open("ab") as out:
            return subprocess.Popen(
                argv,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def drain(self, count: int, within: float) -> float:
        """Jobs a second, of a backlog of `count`, from the first one's beginning to the last one's end."""
        log = self.folder / f"{self.name}-drain.log"
        with self.worker(log):
            wait_until(lambda: ended(log) >= count, within=within, every=0.05, what=f"{self.name} drains")
        lines = read(log)
        return count / (max(line.at for line in lines) - min(line.at for line in lines))

    def latencies(self, count: int, pace_s: float) -> list[float]:
        """Milliseconds from before a job is enqueued until it begins, with a worker that has nothing else to do."""
        log = self.folder / f"{self.name}-latency.log"
        with self.worker(log):
            self.enqueue(20, 1, pace_s)
            wait_until(lambda: ended(log) >= 20, within=START_S, every=0.05, what=f"{self.name} warms up")
            self.enqueue(count, 1, pace_s)
            wait_until(
                lambda: ended(log) >= 20 + count, within=START_S, every=0.05, what=f"{self.name} catches up"
            )
        return [1000 * (line.at - line.asked) for line in read(log) if line.what == "begun"][20:]

    def killed(self, count: int, at: int, patience_s: float) -> Killed:
        """Enqueue `count`, kill the worker's process group once `at` have ended, start another at once."""
        log = self.folder / f"{self.name}-killed.log"
        self.enqueue(count, 1)
        first = self.start(log)
        wait_until(lambda: ended(log) >= at, within=START_S, every=0.001, what=f"{self.name} begins")
        kill(first)
        killed_at = time.monotonic()
        with self.worker(log):
            time.sleep(max(0.0, killed_at + patience_s - time.monotonic()))  # what is done again comes late
        return judge(read(log), count, killed_at)

    def _call(self, *arguments: str) -> str:
        action, *rest = arguments
        argv = [str(self.python), str(HERE / f"{self.name}_peer.py"), action, self.url, *rest]
        done = subprocess.run(
            argv,
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} cannot {action}: {done.stderr.strip().splitlines()[-1:]}")
        return done.stdout


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of a worker's whole group, and wait."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read(log: Path) -> Sequence[Line]:
    """Every whole line so far."""
    whole = log.read_text(encoding="ascii").rpartition("\n")[0]
    parts = (line.split() for line in whole.splitlines())
    return [
        Line(what=what, number=int(number), asked=float(asked), at=float(at))
        for what, number, asked, at in parts
    ]


def ended(log: Path) -> int:
    """How many times a job has ended."""
    return log.read_bytes().count(b"ended ")


def judge(lines: Sequence[Line], count: int, killed_at: float) -> Killed:
    begun = Counter(line.number for line in lines if line.what == "begun")
    done = Counter(line.number for line in lines if line.what == "ended")
    first_begun = {line.number: line.at for line in reversed(lines) if line.what == "begun"}
    last_ended = {line.number: line.at for line in lines if line.what == "ended"}
    cut_off = {
        number
        for number, at in first_begun.items()
        if at < killed_at and last_ended.get(number, killed_at) >= killed_at
    }
    waited = [last_ended[number] - killed_at for number in cut_off if number in last_ended]
    return Killed(
        twice_started=sum(times > 1 for times in begun.values()),
        twice_ended=sum(times > 1 for times in done.values()),
        open=count - len(done),
        back_s=max(waited, default=0.0) if len(done) == count else None,
    )
