"""A parser of event streams (WHATWG HTML, server-sent events), without I/O.

Lines end with LF, CR or CRLF wherever the network cut them; a leading byte-order mark is dropped; `id` stays until
it is set again; a block without data is no event; what the stream leaves unfinished at its end is no event either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from overnight.errors import BodyTooLarge

BOM: Final = b"\xef\xbb\xbf"
MAX_EVENT: Final = 64 << 20
"""Bytes of one event; more is refused rather than collected."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One dispatched event. `event` is `message` when the stream gave it no name; `id` as it stood at the dispatch."""

    event: str
    data: str
    id: str


class SseParser:
    """Feed it the bytes of one response in any pieces; make a new one for each response."""

    def __init__(self, *, last_id: str = "", max_event: int = MAX_EVENT) -> None:
        self.last_id = last_id
        """What a reconnect sends as `Last-Event-ID`."""
        self.retry_ms: int | None = None
        """The pause before a reconnect that the server asked for."""
        self._max_event = max_event
        self._start: bytes | None = b""
        self._skip_lf = False
        self._pieces: list[bytes] = []
        self._rest = 0
        self._size = 0
        self._id = last_id
        self._event = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """The events that `chunk` completes. Raises BodyTooLarge when one grows beyond `max_event`."""
        lines = self._normal(self._without_bom(chunk)).split(b"\n")
        if len(lines) > 1:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces, self._rest = [], 0
        rest = lines.pop()
        found = [frame for line in lines if (frame := self._line(line)) is not None]
        if rest:
            self._pieces.append(rest)
            self._rest += len(rest)
            self._check_size()
        return found

    def _without_bom(self, chunk: bytes) -> bytes:
        if self._start is None:
            return chunk
        start = self._start + chunk
        if len(start) < len(BOM) and BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(BOM)

    def _normal(self, chunk: bytes) -> bytes:
        """`chunk` with LF line ends. A CR at its end counts at once; a LF that begins the next chunk belongs to it."""
        if not chunk:
            return chunk
        if self._skip_lf and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._skip_lf = chunk.endswith(b"\r")
        if b"\r" in chunk:
            return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _line(self, line: bytes) -> Frame | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            self._check_size()
            self._data.append(value)
        elif name == b"id":
            if b"\x00" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"event":
            self._event = value
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> Frame | None:
        self.last_id = self._id
        self._size = 0
        data, event = self._data, self._event
        self._data, self._event = [], b""
        if not data:
            return None
        return Frame(
            event=event.decode("utf-8", "replace") or "message",
            data=b"\n".join(data).decode("utf-8", "replace"),
            id=self._id,
        )

    def _check_size(self) -> None:
        if self._size + self._rest > self._max_event:
            raise BodyTooLarge(f"the server sent an event of more than {self._max_event} bytes")
