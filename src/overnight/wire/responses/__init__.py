"""A run's log as OpenAI Responses: one run is one response, its items and deltas made from events. Pure."""

from __future__ import annotations

from overnight.wire.responses.document import FINAL_STEP, Head, Shelf, head_of, response
from overnight.wire.responses.frames import frames
from overnight.wire.responses.mapper import EXTENSION, FINISH, MAPPED, Mapper, Step
from overnight.wire.responses.position import Position

__all__ = [
    "EXTENSION",
    "FINAL_STEP",
    "FINISH",
    "MAPPED",
    "Head",
    "Mapper",
    "Position",
    "Shelf",
    "Step",
    "frames",
    "head_of",
    "response",
]
