"""Move the agent's output from its pipes into the turn's files: every byte, in order, as far as the limit allows.

When the disk takes no more, the pump stops reading: the agent then waits in its write, and nothing is dropped.
"""

from __future__ import annotations

import os

PIECE = 65_536
"""Bytes of one read: what a pipe holds."""
PIECES_AT_ONCE = 16
"""Reads before other work is looked at."""
DRAIN_ROUNDS = 64
"""What a pipe can hold is read in one or two."""
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0


def make_output(path: str) -> int:
    """A new, empty output file, open for appending. Raises FileExistsError, OSError."""
    return os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )


class Budget:
    """Bytes that may still be kept, of both streams together."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit
        self.discarded = 0

    @property
    def overrun(self) -> bool:
        """Whether the agent has written more than it may."""
        return self.discarded > 0

    def take(self, data: bytes) -> bytes:
        """The part of `data` that may be kept; the rest is counted."""
        if self._left is None:
            return data
        kept = data[: self._left]
        self._left -= len(kept)
        self.discarded += len(data) - len(kept)
        return kept


class Stream:
    """One pipe and its file. `pipe` is -1 once the last writer has gone."""

    def __init__(self, pipe: int, file: int, budget: Budget) -> None:
        self.pipe = pipe
        self.written = 0
        self.unwritten = b""
        """Read, but not taken by the disk."""
        self._budget = budget
        self._file = file

    @property
    def readable(self) -> bool:
        """Whether the pipe is worth watching."""
        return self.pipe >= 0 and not self.unwritten

    def read(self) -> bool:
        """Move what is there, a bounded amount. False when nothing was left to read at the moment."""
        for _ in range(PIECES_AT_ONCE):
            if not self.readable:
                return False
            try:
                data = os.read(self.pipe, PIECE)
            except BlockingIOError:
                return False
            if not data:
                self.close_pipe()
                return False
            self.unwritten = self._budget.take(data)
            self.write()
            if len(data) < PIECE // 2:
                return True
        return True

    def write(self) -> None:
        """Give the file what it has not taken yet."""
        while self.unwritten:
            try:
                taken = os.write(self._file, self.unwritten)
            except OSError:
                return
            self.written += taken
            self.unwritten = self.unwritten[taken:]

    def close_pipe(self) -> None:
        """No more is to come."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1

    def sync(self) -> None:
        """Make the file survive a loss of power, as far as the disk can be asked to."""
        try:
            os.fsync(self._file)
        except OSError:
            return


class Pump:
    """Both streams of one agent under one limit."""

    def __init__(self, out: tuple[int, int], err: tuple[int, int], limit: int | None) -> None:
        self._budget = Budget(limit)
        self.stdout = Stream(*out, self._budget)
        self.stderr = Stream(*err, self._budget)
        self.retry_due: float | None = None
        """Boot-clock second at which a stalled write is tried again."""
        self._pause_s = RETRY_FIRST_S
        self._given_up = 0

    @property
    def streams(self) -> tuple[Stream, Stream]:
        """Standard output, standard error."""
        return self.stdout, self.stderr

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes in the two files."""
        return self.stdout.written, self.stderr.written

    @property
    def stalled(self) -> bool:
        """Whether the disk refuses output at the moment."""
        return bool(self.stdout.unwritten or self.stderr.unwritten)

    @property
    def overrun(self) -> bool:
        """Whether the limit was exceeded."""
        return self._budget.overrun

    @property
    def discarded(self) -> int:
        """Bytes that are in no file: over the limit, or given up."""
        return self._budget.discarded + self._given_up

    def read(self, stream: Stream, now: float) -> None:
        """Move what a readable pipe holds."""
        stream.read()
        self._schedule(now)

    def retry(self, now: float) -> None:
        """Try stalled writes again."""
        self.retry_due = None
        for stream in self.streams:
            stream.write()
        self._schedule(now)

    def drain(self, now: float) -> bool:
        """After the last process has gone: move what is left in the pipes. True when all of it is in the files.

        Does not wait for the end of a pipe: a stranger may hold it open, and even go on writing.
        """
        for stream in self.streams:
            for _ in range(DRAIN_ROUNDS):
                if not stream.read():
                    break
        self._schedule(now)
        if self.stalled:
            return False
        for stream in self.streams:
            stream.close_pipe()
        return True

    def give_up(self) -> None:
        """The disk is still full and nobody will wait any longer: count what is lost and let go."""
        for stream in self.streams:
            self._given_up += len(stream.unwritten)
            stream.unwritten = b""
            stream.close_pipe()
        self.retry_due = None

    def _schedule(self, now: float) -> None:
        if not self.stalled:
            self.retry_due, self._pause_s = None, RETRY_FIRST_S
        elif self.retry_due is None:
            self.retry_due = now + self._pause_s
            self._pause_s = min(self._pause_s * 2, RETRY_MOST_S)
