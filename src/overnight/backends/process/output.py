"""One turn's output on its way into updates: both files, their lines, the codec, and the position after each batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from overnight.backends.process.framing import MAX_LINE, PIECE, LineFramer, OutputTail
from overnight.backends.process.program import Codec
from overnight.backends.process.talk import Talking
from overnight.domain.run import Position
from overnight.domain.update import Update
from overnight.ports.backend import Batch

STDOUT, STDERR = "stdout", "stderr"
"""Names of the output files in a turn's folder."""


class _Stream:
    def __init__(
        self, path: Path, decode: Callable[[bytes, int | None], list[Update]], max_line: int = MAX_LINE
    ) -> None:
        self._tail = OutputTail(path)
        self._max_line = max_line
        self._framer = LineFramer(max_line=max_line)
        self._decode = decode

    @property
    def position(self) -> int:
        return self._framer.position

    def replay(self, until: int) -> None:
        """Decode everything before `until`, which is the end of a line, and forget what it meant."""
        while data := self._tail.read(until):
            for line in self._framer.feed(data):
                self._decode(line.data, line.total)

    def read(self, size: int) -> list[Update]:
        lines = self._framer.feed(self._tail.read(size))
        return [update for line in lines for update in self._decode(line.data, line.total)]

    def catch_up(self, size: int) -> None:
        """Leave out all but the last piece, where that is worth it."""
        gap = size - PIECE - self._tail.offset
        if gap > self._max_line:
            self._tail.skip(gap)
            self._framer.skip(gap)

    def behind(self, size: int) -> bool:
        return self._tail.offset < size

    def finish(self) -> list[Update]:
        line = self._framer.finish()
        return self._decode(line.data, line.total) if line is not None else []

    def size(self) -> int:
        return self._tail.size()

    def close(self) -> None:
        self._tail.close()


class TurnOutput:
    """Reads what the keeper has announced, never more: so every reader makes the same batches of the same bytes."""

    def __init__(self, folder: Path, codec: Codec) -> None:
        longest = codec.max_line if isinstance(codec, Talking) else MAX_LINE
        self._out = _Stream(folder / STDOUT, codec.stdout, longest)
        self._err = _Stream(folder / STDERR, codec.stderr)
        self.hurried = False
        """The turn is given up: what has piled up unread is left out, up to the last piece. The files keep it all."""

    @property
    def position(self) -> Position:
        """Behind the last whole lines that were decoded."""
        return Position(stdout=self._out.position, stderr=self._err.position)

    def replay(self, position: Position) -> None:
        """Bring the codec to where it was at `position`, silently. Raises OutputTruncated."""
        self._out.replay(position.stdout)
        self._err.replay(position.stderr)

    def batch(self, stdout: int, stderr: int) -> Batch:
        """What the next piece of each file means; `behind` says whether there is more. Raises OutputTruncated."""
        if self.hurried:
            self._out.catch_up(stdout)
            self._err.catch_up(stderr)
        updates = (*self._out.read(stdout), *self._err.read(stderr))
        return Batch(updates=updates, position=self.position)

    def behind(self, stdout: int, stderr: int) -> bool:
        """Whether these sizes have not been read yet."""
        return self._out.behind(stdout) or self._err.behind(stderr)

    def finish(self) -> Batch:
        """Everything was read: last lines without a line end count now."""
        updates = (*self._out.finish(), *self._err.finish())
        return Batch(updates=updates, position=self.position)

    def sizes(self) -> tuple[int, int]:
        """What the files hold at present. Raises OutputTruncated."""
        return self._out.size(), self._err.size()

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        self._out.close()
        self._err.close()


def is_long(position: Position) -> bool:
    """Whether a replay up to there would hold up an event loop."""
    return position.stdout + position.stderr > 4 * PIECE
