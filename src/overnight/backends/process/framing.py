"""From a growing output file to whole lines, each with the offset behind it: the same lines whoever reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Self

from overnight.errors import OvernightError

MAX_LINE = 1 << 20
"""Bytes of a line that are handed over; the rest stays in the file."""
PIECE = 128 * 1024
"""Bytes of one read."""


class OutputTruncated(OvernightError):
    """An output file is shorter than what was read from it: somebody cut it, and no offset means anything any more."""

    code = "output_truncated"
    title = "The turn's output was cut"


class Line(NamedTuple):
    """A line, line end included; only the very last one of a stream may lack it."""

    data: bytes
    end: int
    """Offset behind the line."""
    total: int | None
    """Length of the whole line when `data` is only its head."""


class LineFramer:
    """Cuts a stream into lines. Never holds more than one line's head, and looks at every byte once."""

    def __init__(self, *, offset: int = 0, max_line: int = MAX_LINE) -> None:
        self.position = offset
        """Offset behind the last whole line."""
        self._max = max_line
        self._head = b""
        self._length = 0
        """Bytes of the unfinished line; more than `_head` once it is too long."""
        self._room = max_line
        """Bytes that `_head` may have at most; none once a part of the line was left out."""

    @property
    def offset(self) -> int:
        """Offset behind the last byte that was fed."""
        return self.position + self._length

    def feed(self, data: bytes) -> list[Line]:
        """The lines that are whole now; the rest is kept for later."""
        found: list[Line] = []
        start = 0
        while (end := data.find(b"\n", start) + 1) > 0:
            if self._length or end - start > self._max:
                found.append(self._finish(data[start:end]))
            else:
                self.position += end - start
                found.append(Line(data[start:end], self.position, None))
            start = end
        self._keep(data[start:])
        return found

    def skip(self, count: int) -> None:
        """The next `count` bytes (more than a line may have) are not fed: they are the middle of one line too long.

        Nothing of that line is handed over, since a secret could be cut where the gap begins or ends.
        """
        self._length += count
        self._head, self._room = b"", 0

    def finish(self) -> Line | None:
        """The stream has ended: the last piece, if it did not end with a line end."""
        return self._finish(b"") if self._length else None

    def _finish(self, data: bytes) -> Line:
        total = self._length + len(data)
        self.position += total
        if self._length:
            data = self._head + data[: max(0, self._room - len(self._head))]
            self._head, self._length, self._room = b"", 0, self._max
        if total <= self._max:
            return Line(data, self.position, None)
        return Line(data[: self._max], self.position, total)

    def _keep(self, data: bytes) -> None:
        self._length += len(data)
        if len(self._head) < self._room:
            self._head += data[: self._room - len(self._head)]


class OutputTail:
    """Reads an output file that somebody else appends to, up to the size that was announced."""

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self.offset = offset
        """The next byte to be read."""
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def read(self, size: int, *, most: int = PIECE) -> bytes:
        """The next bytes below `size`; empty when there are none. Raises OutputTruncated."""
        wanted = min(size - self.offset, most)
        if wanted <= 0:
            return b""
        data = os.pread(self._file, wanted, self.offset)
        if not data:
            raise OutputTruncated(f"{self._path} ends before byte {self.offset}, {size} were written")
        self.offset += len(data)
        return data

    def skip(self, count: int) -> None:
        """Leave out the next `count` bytes."""
        self.offset += count

    def size(self) -> int:
        """The file's present size. Raises OutputTruncated when it is less than what was read."""
        size = os.fstat(self._file).st_size
        if size < self.offset:
            raise OutputTruncated(f"{self._path} has {size} bytes, {self.offset} were read")
        return size

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
