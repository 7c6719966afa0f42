"""Frames of an event stream for Responses events."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from overnight.wire.responses.mapper import Step


def frames(steps: Sequence[Step], seq: int, *, named: bool, complete: bool = True) -> bytes:
    """The frames of what event `seq` became, or of what is shown live behind it.

    `id` is our own seq, the cursor of every other shape: that of the event before, until the last frame of the event
    (where `complete`: there is nothing more of it). A reader that is cut off in between gets the whole event again.
    """
    last = len(steps) - 1 if complete else -1
    return b"".join(
        [_frame(seq if at == last else seq - 1, step, named=named) for at, step in enumerate(steps)]
    )


def _frame(id: int, step: Step, *, named: bool) -> bytes:
    body = orjson.dumps(step)
    if named:
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (id, str(step["type"]).encode(), body)
    return b"id: %d\ndata: %b\n\n" % (id, body)
