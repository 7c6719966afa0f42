"""Documents as they are sent."""

from __future__ import annotations

import orjson

from overnight.domain.event import canonical


def encoded(document: object) -> bytes:
    """As JSON; what JSON cannot hold is mended as it is for events."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return canonical(document)
