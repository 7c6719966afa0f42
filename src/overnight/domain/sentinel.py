"""Sentinels: lines by which an agent program reports facts about its own work. Anything in them may be forged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from overnight.domain.event import Draft
from overnight.domain.update import UsageReported
from overnight.domain.values import Usage

KEYS: Final = ("__overnight__", "__cody_event__")
MAX_LINE: Final = 65_536
"""A longer line is no sentinel but a bad one."""
MAX_NAME: Final = 200
_BIG: Final = 1 << 53
_RESERVED: Final = frozenset(
    {
        "type",
        "seq",
        "id",
        "at",
        "ts",
        "run_id",
        "runId",
        "session_id",
        "sessionId",
        "turn",
        "attempt",
        "source",
    }
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

Body = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSentinel:
    """A line that claims to be a sentinel and is none; `reason` says why. It is shown as ordinary output."""

    reason: str


class _Refused(ValueError):
    """A field that is missing or of the wrong kind."""


def may_be_sentinel(line: bytes) -> bool:
    """A cheap look: whether `parse` is worth its while."""
    return b"__" in line and line.lstrip()[:1] == b"{" and any(key.encode() in line for key in KEYS)


def parse(line: bytes, *, whole: bool = True) -> Draft | UsageReported | BadSentinel | None:
    """What one line of stdout says: an event, this turn's usage, something bad, or None when it is no sentinel.

    Types that Overnight does not know become `agent.custom`; no sentinel can become an event that moves a state.
    `whole` is False when only the head of a longer line is here.
    """
    if not may_be_sentinel(line):
        return None
    if not whole or len(line) > MAX_LINE:
        return BadSentinel(reason="the line is too long")
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return BadSentinel(reason="not valid JSON")
    key = next((key for key in KEYS if key in document), None)
    if key is None:
        return None
    body = document[key]
    if not isinstance(body, dict) or not isinstance(body.get("type"), str) or not body["type"].strip():
        return BadSentinel(reason="no object with a type")
    return _read(body["type"].strip(), body)


def _read(name: str, body: Body) -> Draft | UsageReported | BadSentinel:
    reader = _READERS.get(_snake(name).replace(".", "_"))
    if reader is None:
        if len(name) > MAX_NAME:
            return BadSentinel(reason="the type is too long")
        data = {key: value for key, value in body.items() if key not in _RESERVED}
        return Draft(type="agent.custom", data={"name": name, "data": data})
    try:
        return reader({_snake(key): value for key, value in body.items()})
    except _Refused as refusal:
        return BadSentinel(reason=str(refusal))


def _snake(name: str) -> str:
    return _HUMP.sub("_", name).lower()


def _written(body: Body) -> Draft:
    kind = body.get("kind", "modified")
    if kind not in ("created", "modified"):  # what an agent claims may be unhashable
        raise _Refused("kind is neither created nor modified")
    digest = body.get("sha256")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise _Refused("sha256 is not 64 hexadecimal digits")
    sizes = {name: _count(body, name) for name in ("bytes", "added_lines", "removed_lines")}
    return _draft("file.written", {"path": _path(body), "kind": kind, "sha256": digest, **sizes})


def _file_read(body: Body) -> Draft:
    return _draft("file.read", {"path": _path(body), "bytes": _count(body, "bytes")})


def _deleted(body: Body) -> Draft:
    return _draft("file.deleted", {"path": _path(body)})


def _log(body: Body) -> Draft:
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in _LOG_KINDS:
        raise _Refused("kind is neither work nor decision")
    nested = body.get("delta")
    delta = {_snake(str(key)): value for key, value in nested.items()} if isinstance(nested, dict) else body
    tail = delta.get("tail")
    data = {
        "kind": _LOG_KINDS[kind],
        "path": _path(body),
        "added_bytes": _count(delta, "added_bytes") or 0,
        "added_lines": _count(delta, "added_lines") or 0,
        "tail": tail if isinstance(tail, str) else "",
    }
    return _draft("log.updated", data)


def _question(body: Body) -> Draft:
    return _draft("question.asked", {"text": _text(body, "text", limit=16_384)})


def _tests_started(body: Body) -> Draft:
    command = body.get("command")
    return _draft("tests.started", {"command": command if isinstance(command, str) else None})


def _tests_completed(body: Body) -> Draft:
    nested = body.get("summary")
    counts = dict(body)
    if isinstance(nested, dict):
        counts |= {_snake(str(key)): value for key, value in nested.items()}
    command = body.get("command")
    code = body.get("exit_code")
    if code is not None and (isinstance(code, bool) or not isinstance(code, int) or abs(code) > 1 << 31):
        raise _Refused("exit_code is not a small integer")
    data: dict[str, object] = {
        "command": command if isinstance(command, str) else None,
        "exit_code": code,
        "duration_ms": _count(body, "duration_ms"),
    }
    data |= {name: _count(counts, name) or 0 for name in ("passed", "failed", "skipped")}
    return _draft("tests.completed", data)


def _usage(body: Body) -> UsageReported:
    given = _first(body, "input", "input_tokens", "prompt_tokens")
    produced = _first(body, "output", "output_tokens", "completion_tokens")
    total = _first(body, "total", "total_tokens")
    if given is None and produced is None:
        if total is None:
            raise _Refused("no token counts")
        given = total
    elif given is None or produced is None:
        known = given if given is not None else produced or 0
        other = max((total or known) - known, 0)
        given, produced = (known, other) if given is not None else (other, known)
    cost = body.get("cost_usd")
    usage = Usage(
        input=given,
        cached=min(_first(body, "cached", "cached_tokens", "cached_input_tokens") or 0, given),
        output=produced or 0,
        reasoning=min(_first(body, "reasoning", "reasoning_tokens") or 0, produced or 0),
        cost_usd=float(cost) if isinstance(cost, int | float) and 0 <= cost <= 1e9 else None,
    )
    return UsageReported(usage=usage, source="agent")


def _draft(type: str, data: dict[str, object]) -> Draft:
    return Draft(type=type, data={**data, "source": "agent"})


def _path(body: Body) -> str:
    return _text(body, "path", limit=4096)


def _text(body: Body, name: str, *, limit: int) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > limit or "\0" in value:
        raise _Refused(f"{name} is not a text of 1 to {limit} characters")
    return value


def _count(body: Body, name: str) -> int | None:
    return _number(body.get(name), name)


def _first(body: Body, *names: str) -> int | None:
    return next((_number(body[name], name) for name in names if body.get(name) is not None), None)


def _number(value: object, name: str) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _BIG:
        raise _Refused(f"{name} is not a count")
    return value


_LOG_KINDS: Final = {"work": "work", "decision": "decision", "codys-log": "work", "decision-log": "decision"}
_READERS: Final[Mapping[str, Callable[[Body], Draft | UsageReported]]] = {
    "file_written": _written,
    "file_read": _file_read,
    "file_deleted": _deleted,
    "log_updated": _log,
    "question_asked": _question,
    "tests_started": _tests_started,
    "test_run_started": _tests_started,
    "tests_completed": _tests_completed,
    "test_run_completed": _tests_completed,
    "usage_recorded": _usage,
    "token_usage": _usage,
}
