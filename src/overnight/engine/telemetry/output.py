"""What an agent's program prints, as `output.recorded` chunks: bounded in size and rate, readable, without secrets.

The child never waits for this: what does not fit is counted and stays in the turn's output file.
"""

from __future__ import annotations

import codecs
from collections import deque
from typing import Final, Literal

from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.runners import MAYBE, RunnerResult, RunnerWatch
from overnight.domain.text import plain
from overnight.engine.telemetry.rates import Slots

CHUNK: Final = 2048
"""Bytes of UTF-8 in one chunk, at most."""
CHUNKS_A_SECOND: Final = 10
PAUSE_S: Final = 0.1
"""Lines that come within this time after a chunk are put together."""
CREDIT_S: Final = 60.0
"""Time that nobody recorded, of which at most so much is made good at once: 600 chunks."""
LOOK: Final = 32_768
"""Bytes of one line that are looked at; no more could be shown in a second."""
LAST_LINES: Final = 40
"""Lines kept while nothing can be shown, in which a test runner may have said its last."""


class OutputStream:
    """One of the two streams of a turn. All times are monotonic seconds.

    `unrecorded_s` is how long nobody was there before: what was printed meanwhile comes at once, and has its own rate.
    """

    def __init__(
        self, name: Literal["stdout", "stderr"], redactor: Redactor, *, unrecorded_s: float = 0.0
    ) -> None:
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._secrets = redactor.stream()
        self._slots = Slots(CHUNKS_A_SECOND, credit=int(CHUNKS_A_SECOND * min(unrecorded_s, CREDIT_S)))
        self._last = float("-inf")
        self._chunks: list[str] = []
        self._room = 0
        """Bytes free in the last chunk."""
        self._space = 0
        """Chunks that may be pending until the next release."""
        self._bytes = 0
        self._dropped = 0
        self.full = False
        """Nothing more fits until the next release: a caller in a hurry may only `drop`."""
        self._unseen: deque[bytes] = deque(maxlen=LAST_LINES)
        self._tests = RunnerWatch()
        self.total_dropped = 0

    def drop(self, data: bytes, total: int | None) -> None:
        """Count a line that cannot be shown."""
        self._dropped += total or len(data)
        self._unseen.append(data)

    def feed(self, data: bytes, total: int | None, now: float) -> list[RunnerResult]:
        """Take a line; it is shown at the next release. Results of test runners that it closes come back."""
        if self.full:
            self.drop(data, total)
            return []
        if not self._chunks and not self._dropped:
            credit = self._slots.credit
            self._space = max(1, credit + (self._slots.free(now) - credit + 1) // 2)
        seen = data[:LOOK]
        text = self._decoder.decode(seen)
        size = total or len(data)
        cut = size > len(seen)
        if cut:
            self._decoder.reset()
        shown = self._secrets.feed(plain(text))
        if cut:
            self._secrets.skip()
            shown += "\n"
        shown_bytes = self._fit(shown, len(seen))
        self._bytes += shown_bytes
        self._dropped += size - shown_bytes
        return self._results(text) if MAYBE.search(seen) else []

    def due(self, now: float) -> float | None:
        """When everything that is pending can be released; None when nothing is."""
        if not self._chunks and not self._dropped:
            return None
        return max(self._last + PAUSE_S, self._slots.at(max(1, len(self._chunks)), now))

    def order_is_cheap(self, now: float) -> bool:
        """Whether releasing now would leave most of the rate unused."""
        return self._slots.free(now) - len(self._chunks) >= CHUNKS_A_SECOND // 2

    def release(self, now: float) -> list[Draft]:
        """Everything that is pending. Before it is due, what goes beyond the rate is counted instead of shown."""
        if not self._chunks and not self._dropped:
            return []
        free = self._slots.free(now)
        if free < max(1, len(self._chunks)):
            self._dropped += self._bytes
            self._chunks, self._bytes, self._room, self.full = [], 0, 0, True
            return []
        return self._emit(now)

    def finish(self, now: float) -> list[Draft]:
        """The same at the end, beyond the rate if need be, with what was held back."""
        if not self.full:
            rest = self._decoder.decode(b"", final=True)
            self._space += 1
            self._fit(self._secrets.feed(plain(rest)) + self._secrets.finish(), 0)
        return self._emit(now) if self._chunks or self._dropped or self._bytes else []

    def quiet_results(self) -> list[RunnerResult]:
        """Results that stand in the lines which could not be shown, and of runners that close part by part."""
        found = []
        while self._unseen:
            line = self._unseen.popleft()
            if MAYBE.search(line[:LOOK]):
                found += self._results(line[:LOOK].decode("utf-8", "replace"))
        last = self._tests.end()
        return [*found, last] if last else found

    def _results(self, text: str) -> list[RunnerResult]:
        return [found for line in plain(text).splitlines() if (found := self._tests.line(line))]

    def _fit(self, text: str, size: int) -> int:
        """Put `text` behind what is pending, cut on characters. How many of its `size` raw bytes are shown by that."""
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= self._room:
            if encoded:
                self._chunks[-1] += text
                self._room -= len(encoded)
            return size
        at = 0
        while at < len(encoded) and (self._room or len(self._chunks) < self._space):
            if not self._room:
                self._chunks.append("")
                self._room = CHUNK
            piece = encoded[at : at + self._room].decode("utf-8", "ignore")
            taken = len(piece.encode())
            self._chunks[-1] += piece
            at += taken
            self._room = self._room - taken if at >= len(encoded) else 0
        if at >= len(encoded):
            return size
        self.full = True
        self._decoder.reset()
        self._secrets.skip()
        return min(at, size)

    def _emit(self, now: float) -> list[Draft]:
        chunks = self._chunks or [""]
        dropped, left = self._dropped, self._bytes
        drafts = []
        for number, text in enumerate(chunks, 1):
            last = number == len(chunks)
            size = left if last else min(left, len(text.encode()))
            left -= size
            data = {
                "stream": self._name,
                "text": text,
                "bytes": size,
                "truncated_bytes": dropped if last else 0,
            }
            drafts.append(Draft(type="output.recorded", data=data))
        self.total_dropped += dropped
        self._slots.take(now, len(chunks))
        self._last = now
        self._chunks, self._bytes, self._dropped, self._room, self.full = [], 0, 0, 0, False
        return drafts
