"""Envelopes as bytes and back. What cannot be read as one becomes a `Malformed`, which says why; nothing is raised."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from overnight.errors import (
    InvalidInput,
    InvalidPayload,
    InvalidSequence,
    OvernightError,
    ProtocolError,
    VersionMismatch,
)

VERSION: Final = 1
CONN: Final = "conn"
"""The scope of what belongs to the connection as a whole: its control lane."""
KINDS: Final = ("session", "stream", "tool", "run")
"""Kinds of scopes beside it; each is `<kind>:<id>`."""
NO_ID: Final = ""
_SCOPE: Final = re.compile(r"(?:session|stream|tool|run):[A-Za-z0-9_.-]{1,64}\Z")
_ID: Final = re.compile(r"[!-~]{1,64}\Z")
_LONGEST_TYPE: Final = 64
HIGHEST_SEQ: Final = (1 << 53) - 1
"""Beyond it a JSON number is no integer to some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message. `ts`: when it was made, Unix milliseconds by its sender's clock."""

    type: str
    scope: str
    id: str
    seq: int
    ts: int
    payload: Mapping[str, Any]
    reply_to: str | None = None
    body: Any = None
    """The payload as its type in the catalog has checked it; None where nobody has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """What is no envelope: the error to answer with, and what could be made out of it."""

    error: OvernightError
    type: str = ""
    scope: str = CONN
    id: str = NO_ID


def kind_of(scope: str) -> str:
    """`conn`, `session`, `stream`, `tool` or `run`; of a name that is a scope."""
    return scope.partition(":")[0]


def is_scope(name: object) -> bool:
    """Whether the name is that of a scope."""
    return name == CONN or (isinstance(name, str) and _SCOPE.match(name) is not None)


def encode(envelopes: Sequence[Envelope]) -> bytes:
    """One message: the envelope alone, or an array of several. Payloads may hold `orjson.Fragment`s."""
    return join([
        frame(
            one.type, one.scope, one.id, one.seq, one.ts, one.reply_to, payload_bytes(one.payload)
        )
        for one in envelopes
    ])  # fmt: skip


def join(members: Sequence[bytes]) -> bytes:
    """Encoded envelopes as one message."""
    return members[0] if len(members) == 1 else b"[" + b",".join(members) + b"]"


def payload_bytes(payload: Mapping[str, Any] | bytes) -> bytes:
    """The payload as JSON; bytes are taken for JSON already. InvalidInput for what JSON cannot say."""
    if isinstance(payload, bytes):
        return payload
    try:
        return orjson.dumps(payload)
    except TypeError as error:
        raise InvalidInput(f"the payload is not JSON: {error}") from None


def frame(
    type: str, scope: str, id: str, seq: int, ts: int, reply_to: str | None, payload: bytes
) -> bytes:  # fmt: skip
    """One envelope of parts that are known to be sound, but for `reply_to`, which the other side chose."""
    answers = b"" if reply_to is None else b',"reply_to":' + orjson.dumps(reply_to)
    return b'{"v":1,"type":"%b","scope":"%b","id":"%b","seq":%d,"ts":%d%b,"payload":%b}' % (
        type.encode(), scope.encode(), id.encode(), seq, ts, answers, payload
    )  # fmt: skip


def decode(data: bytes | str, *, max_batch: int) -> list[Envelope | Malformed]:
    """The envelopes of one message, in order; a malformed member spoils only itself."""
    try:
        found = orjson.loads(data)
    except ValueError as error:
        return [Malformed(error=ProtocolError(f"not JSON: {error}"))]
    if not isinstance(found, list):
        return [_read(found)]
    if not 1 <= len(found) <= max_batch:
        return [
            Malformed(error=ProtocolError(f"a message holds 1 to {max_batch} envelopes, not {len(found)}"))
        ]
    return [_read(one) for one in found]


def _read(found: Any) -> Envelope | Malformed:
    if type(found) is not dict:
        return Malformed(error=ProtocolError("an envelope is a JSON object"))
    get = found.get
    type_, scope, id_, seq = get("type"), get("scope"), get("id"), get("seq")
    ts, payload, reply_to = get("ts"), get("payload"), get("reply_to")
    if (
        type(v := get("v")) is int
        and v == VERSION
        and type(type_) is str
        and 0 < len(type_) <= _LONGEST_TYPE
        and type(scope) is str
        and (scope == CONN or _SCOPE.match(scope))
        and type(id_) is str
        and _ID.match(id_)
        and type(seq) is int
        and 1 <= seq <= HIGHEST_SEQ
        and type(ts) is int
        and type(payload) is dict
        and (reply_to is None or (type(reply_to) is str and _ID.match(reply_to)))
    ):
        return Envelope(type=type_, scope=scope, id=id_, seq=seq, ts=ts, payload=payload, reply_to=reply_to)
    return Malformed(
        error=_why(found),
        type=type_ if isinstance(type_, str) and len(type_) <= _LONGEST_TYPE else "",
        scope=str(scope) if is_scope(scope) else CONN,
        id=id_ if isinstance(id_, str) and _ID.match(id_) else NO_ID,
    )


def _why(found: Mapping[str, Any]) -> OvernightError:
    """What is wrong with an object that is no envelope."""
    if type(found.get("v")) is int and found["v"] != VERSION:
        return VersionMismatch(
            f"version {found['v']} is not spoken here", extra={"supported_versions": [VERSION]}
        )
    type_, id_, reply_to = found.get("type"), found.get("id"), found.get("reply_to")
    checks = (
        ("v", type(found.get("v")) is int, f"the integer {VERSION}"),
        ("type", isinstance(type_, str) and 0 < len(type_) <= _LONGEST_TYPE, "the name of a message type"),
        ("scope", is_scope(found.get("scope")), "`conn`, or a kind of scope, a colon and an id"),
        ("id", isinstance(id_, str) and _ID.match(id_), "1 to 64 printable ASCII characters"),
        ("ts", type(found.get("ts")) is int, "an integer of Unix milliseconds"),
        ("payload", type(found.get("payload")) is dict, "an object"),
        ("reply_to", reply_to is None or (isinstance(reply_to, str) and _ID.match(reply_to)), "the id of a message"),
    )  # fmt: skip
    for name, sound, wanted in checks:
        if not sound:
            missing = "is missing; it is" if name not in found else "must be"
            return InvalidPayload(f"/{name} {missing} {wanted}", extra={"pointer": f"/{name}"})
    return InvalidSequence("/seq must be an integer from 1", extra={"pointer": "/seq"})
