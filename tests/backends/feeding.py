"""Feeding codecs by hand."""

from __future__ import annotations

import json

from overnight.backends.process.program import Codec, Exit
from overnight.domain.update import Update
from overnight.domain.values import Failure


def line(event: object) -> bytes:
    return json.dumps(event).encode() + b"\n"


def feed(codec: Codec, *events: object) -> list[Update]:
    return [update for event in events for update in codec.stdout(line(event))]


def failed(codec: Codec, exit: Exit) -> Failure:
    outcome = codec.finish(exit).outcome
    assert outcome.stop_reason is None
    assert outcome.failure is not None
    return outcome.failure
