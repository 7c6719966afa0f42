"""What a command prints: all of it in a file, and the part that a model is shown."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

MOST_SHOWN_BYTES: Final = 10 * 1024
MOST_SHOWN_LINES: Final = 256
MOST_KEPT: Final = 256 << 20
"""Bytes of the file; what comes after is counted and thrown away, so that no command fills the disk."""
_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class Output:
    """Takes what a command prints as it comes. Close it when nothing more will come.

    `progress` is told text in whole characters. The file is made at the first byte; if it cannot be written, the
    command goes on and `note` says so.
    """

    def __init__(self, folder: Path, call_id: str, progress: Callable[[str], None]) -> None:
        self._folder = folder
        self._name = _NAME.sub("-", call_id).strip(".-")[:80] or "call"
        self._progress = progress
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._file: int | None = None
        self._head = bytearray()
        self._tail = bytearray()
        self._lines = 0
        self.path: Path | None = None
        self.total = 0
        """Bytes that were printed."""
        self.note = ""

    def take(self, data: bytes) -> None:
        """More of it."""
        self._keep(data)
        self.total += len(data)
        self._lines += data.count(b"\n")
        if len(self._head) < MOST_SHOWN_BYTES:
            self._head += data[: MOST_SHOWN_BYTES - len(self._head)]
        self._tail += data[-MOST_SHOWN_BYTES:]
        del self._tail[:-MOST_SHOWN_BYTES]
        if text := self._decoder.decode(data):
            self._progress(text)

    def close(self) -> None:
        """Nothing more will come."""
        if text := self._decoder.decode(b"", final=True):
            self._progress(text)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def shown(self) -> str:
        """The part for the model: all of it, or its beginning and its end with a line between that says what is not."""
        unfinished = self.total > 0 and not self._tail.endswith(b"\n")
        lines = self._lines + unfinished
        if self.total <= MOST_SHOWN_BYTES and lines <= MOST_SHOWN_LINES:
            return bytes(self._head).decode("utf-8", "replace")
        head = _first(bytes(self._head))
        tail = _last(bytes(self._tail))
        hidden = self.total - len(head) - len(tail)
        if hidden <= 0:
            # Few bytes in many short lines: the halves touch.
            tail, hidden = tail[-(self.total - len(head)) :], 0
        cut = max(0, lines - head.count(b"\n") - tail.count(b"\n") - (not tail.endswith(b"\n")))
        return "".join(
            (
                head.decode("utf-8", "ignore"),
                "" if head.endswith(b"\n") else "\n",
                f"[... {cut} of {lines} lines ({hidden} of {self.total} bytes) left out{self._where()} ...]\n",
                tail.decode("utf-8", "ignore"),
            )
        )

    def _where(self) -> str:
        if self.path is None:
            return ""
        kept = "all of it" if self.total <= MOST_KEPT else f"the beginning of it, {MOST_KEPT} bytes,"
        return f"; {kept} is in {self.path}"

    def _keep(self, data: bytes) -> None:
        if self.note or self.total >= MOST_KEPT:
            return
        try:
            if self._file is None:
                self._file = self._made()
            view = memoryview(data)[: MOST_KEPT - self.total]
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self.note = f"the full output could not be kept: {error.strerror or error}"
            self.path = None

    def _made(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for number in range(1, 10_000):
            path = self._folder / (f"{self._name}.txt" if number == 1 else f"{self._name}-{number}.txt")
            try:
                made = os.open(path, flags, 0o600)
            except FileExistsError:
                continue
            self.path = path
            return made
        raise FileExistsError(17, "too many outputs of one name")


def _first(data: bytes) -> bytes:
    part = data[: MOST_SHOWN_BYTES // 2]
    end = _nth(part, MOST_SHOWN_LINES // 2)
    return _whole_start(part if end is None else part[: end + 1])


def _last(data: bytes) -> bytes:
    part = data[-MOST_SHOWN_BYTES // 2 :]
    ends = [at for at, sign in enumerate(part[:-1]) if sign == 0x0A]
    if len(ends) >= MOST_SHOWN_LINES // 2:
        part = part[ends[-(MOST_SHOWN_LINES // 2)] + 1 :]
    start = 0
    while start < min(3, len(part)) and part[start] & 0xC0 == 0x80:
        start += 1
    return part[start:]


def _nth(data: bytes, count: int) -> int | None:
    """Where the `count`-th line ends; None when there are fewer."""
    at = -1
    for _ in range(count):
        at = data.find(b"\n", at + 1)
        if at < 0:
            return None
    return at


def _whole_start(data: bytes) -> bytes:
    """Without the character that was cut in two at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return data if wanted <= back else data[:-back]
    return data
