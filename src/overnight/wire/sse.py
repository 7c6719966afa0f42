"""Frames of an event stream (WHATWG HTML, server-sent events), without I/O.

Line ends are LF, there is no byte-order mark, and every frame that carries data has an `id:` line, so that browsers
and simpler clients agree on the cursor. Event bodies are canonical JSON on one line, so one `data:` line is enough:
the stored bytes are framed as they are, never encoded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from overnight.domain.event import Recorded
from overnight.errors import InvalidCursor

HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
"""Headers of every stream; the content type must be exactly this, or browsers give up for good."""
KEEPALIVE: Final = b":keepalive\n\n"
OPENED: Final = b":open\n\n"
"""The first bytes of a stream, so that the client sees its headers before anything happens."""
CLOSING: Final = b":closing\n\n"
"""The server ends the stream without its being over: come back with the cursor."""
REPLACED: Final = b":replaced by another connection of the same client\n\n"
"""The client is connected anew, so this connection of it ends."""
END_CURSOR: Final = "end"
_MAX_SEQ: Final = (1 << 63) - 1


def events(batch: Iterable[Recorded]) -> bytes:
    """Frames without `event:`: the type is in the data, so that `onmessage` sees every event."""
    return b"".join([b"id: %d\ndata: %b\n\n" % (event.seq, event.body) for event in batch])


def named_events(batch: Iterable[Recorded]) -> bytes:
    """Frames with `event: <type>` besides."""
    return b"".join(
        [b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.type.encode(), event.body) for event in batch]
    )


def delta(last_seq: int, body: bytes) -> bytes:
    """A transient fragment; `id:` repeats the last durable seq, so it moves no cursor.

    `body` is a JSON object whose `type` is `message.delta`, `reasoning.delta` or `output.delta`.
    """
    kind = orjson.loads(body).get("type", "delta")
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (last_seq, _word(kind), body)


def presence(last_seq: int, body: bytes) -> bytes:
    """Who follows the session now; `id:` repeats the last durable seq, so it moves no cursor."""
    return b"id: %d\nevent: presence\ndata: %b\n\n" % (last_seq, body)


def summary(position: int, document: Mapping[str, object]) -> bytes:
    """One run's summary in the stream of summaries; `position` is its cursor."""
    return b"id: %d\ndata: %b\n\n" % (position, orjson.dumps(document))


def gap(earliest: int, latest: int) -> bytes:
    """Says that events before `earliest` have been trimmed; the stream goes on from there."""
    return b'id: %d\nevent: gap\ndata: {"earliest":%d,"latest":%d}\n\n' % (earliest - 1, earliest, latest)


def end(last_seq: int) -> bytes:
    """The last frame of a stream that is over."""
    return b"id: %d\nevent: end\ndata: [DONE]\n\n" % last_seq


def cursor(last_event_id: str | None, after: str | None) -> int | None:
    """The position to go on from: the `Last-Event-ID` header, else `?after=`, else 0; None means `end` (new ones only).

    An empty `Last-Event-ID` counts as none, as browsers mean it. Raises InvalidCursor.
    """
    text = last_event_id or after
    if text is None:
        return 0
    if text == END_CURSOR:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > _MAX_SEQ:
        raise InvalidCursor(f"{text[:40]!r} is not a position in a stream: a whole number from 0, or 'end'")
    return int(text)


def slices(frames: bytes, limit: int) -> Sequence[bytes]:
    """`frames` in pieces of at most `limit` bytes, for transports that buffer a whole send."""
    if len(frames) <= limit:
        return (frames,)
    view = memoryview(frames)
    return [bytes(view[at : at + limit]) for at in range(0, len(frames), limit)]


def _word(kind: object) -> bytes:
    text = kind if isinstance(kind, str) else "delta"
    return "".join(letter for letter in text if letter.isalnum() or letter in "._-").encode() or b"delta"
