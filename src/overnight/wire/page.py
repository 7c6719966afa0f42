"""Cursors of lists: opaque to clients, checked when they come back."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from overnight.errors import InvalidCursor

_SHAPE: Final = re.compile(rb"1:(0|[1-9][0-9]{0,17}):(0|[1-9][0-9]{0,17})")


def encode(position: tuple[int, int] | None) -> str | None:
    """The cursor of the next page, from the (created_at, pk) of the last row; None when there is no next page."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(b"1:%d:%d" % position).rstrip(b"=").decode()


def decode(cursor: str | None) -> tuple[int, int] | None:
    """The position behind a cursor; None for none. Raises InvalidCursor for anything this server did not make."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(
            cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
    except (ValueError, binascii.Error):
        raise _refusal(cursor) from None
    match = _SHAPE.fullmatch(raw)
    position = (int(match[1]), int(match[2])) if match else None
    if position is None or encode(position) != cursor:
        raise _refusal(cursor)
    return position


def _refusal(cursor: str) -> InvalidCursor:
    return InvalidCursor(
        f"{cursor[:60]!r} is not a cursor of a list", mend="leave `cursor` out to begin again"
    )
