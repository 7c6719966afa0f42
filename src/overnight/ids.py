"""Typed identifiers: a prefix, an underscore, 26 lower-case Crockford base32 characters of a UUIDv7 (RFC 9562)."""

from __future__ import annotations

import re
import secrets
from typing import NewType

from overnight.errors import InvalidId

RunId = NewType("RunId", str)
SessionId = NewType("SessionId", str)
ApprovalId = NewType("ApprovalId", str)
WorkerId = NewType("WorkerId", str)
TokenId = NewType("TokenId", str)
HostId = NewType("HostId", str)
MessageId = NewType("MessageId", str)
ShareId = NewType("ShareId", str)
ConnectionId = NewType("ConnectionId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -1, -10)
_SHAPE = re.compile(r"([a-z]{3})_[0-7][0-9a-hjkmnp-tv-z]{25}")


def new_run_id(now_ms: int) -> RunId:
    """A fresh run id that sorts by `now_ms`."""
    return RunId(_new("run", now_ms))


def new_session_id(now_ms: int) -> SessionId:
    """A fresh session id that sorts by `now_ms`."""
    return SessionId(_new("ses", now_ms))


def new_worker_id(now_ms: int) -> WorkerId:
    """A fresh worker id that sorts by `now_ms`."""
    return WorkerId(_new("wrk", now_ms))


def new_token_id(now_ms: int) -> TokenId:
    """A fresh id of an access token (not the secret itself)."""
    return TokenId(_new("tok", now_ms))


def new_host_id(now_ms: int) -> HostId:
    """A fresh host id; made once for an installation."""
    return HostId(_new("hst", now_ms))


def new_approval_id(now_ms: int) -> ApprovalId:
    """A fresh approval id that sorts by `now_ms`."""
    return ApprovalId(_new("apr", now_ms))


def new_message_id(now_ms: int) -> MessageId:
    """A fresh id of a message that waits for its turn."""
    return MessageId(_new("msg", now_ms))


def new_share_id(now_ms: int) -> ShareId:
    """A fresh id of a share (not the code of its link)."""
    return ShareId(_new("shr", now_ms))


def new_connection_id(now_ms: int) -> ConnectionId:
    """A fresh connection id that sorts by `now_ms`."""
    return ConnectionId(_new("con", now_ms))


def check_id(prefix: str, text: str) -> str:
    """`text` when it is an id of that kind, else raises `InvalidId` that says what was expected."""
    match = _SHAPE.fullmatch(text)
    if match is None or match[1] != prefix:
        raise InvalidId(f"{text[:80]!r} is not an id of the form {prefix}_ and 26 base32 characters")
    return text


def _new(prefix: str, now_ms: int) -> str:
    chance = secrets.randbits(74)
    number = (
        (now_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | chance >> 62 << 64 | 0b10 << 62 | chance & (1 << 62) - 1
    )
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
