"""Events: recorded facts, encoded once as canonical JSON, never changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import orjson

from overnight.clock import rfc3339

SCHEMA_VERSION: Final = 1
"""Version of the shape of `data`, stored beside each event; older ones are upcast when read."""

TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run.queued": "the run was accepted",
        "run.started": "a worker took the run for the first time",
        "run.pausing": "a pause was asked for; the turn in progress goes on or is interrupted",
        "run.paused": "the run stands still until it is resumed",
        "run.resumed": "the run goes on",
        "run.waiting": "the run waits for a person; no process lives",
        "run.blocked": "the run waits for a person; the agent's process lives",
        "run.steered": "a person sent text to the agent",
        "run.requeued": "the hold was given back or lost; another worker may take the run",
        "run.handed_over": "the server left its living agents to the next server",
        "run.cancelling": "a cancel was asked for",
        "run.cancelled": "the run was stopped (final)",
        "run.completed": "the run is done (final)",
        "run.failed": "the run could not go on (final)",
        "run.recovered": "another hold took over after a crash, a stop or a lost lease",
        "control.requested": "somebody asked for something; the holder will act",
        "turn.started": "a turn began",
        "turn.completed": "the turn ended in order",
        "turn.failed": "the turn ended with an error",
        "turn.abandoned": "the turn's agent or keeper is gone; it will be done again",
        "message.completed": "the agent said something",
        "reasoning.completed": "the agent's reasoning, where the backend shows it",
        "plan.updated": "the agent's own plan changed",
        "question.asked": "the agent wrote down a question",
        "tool.started": "a tool call began",
        "tool.completed": "a tool call ended",
        "command.started": "a shell command began",
        "command.completed": "a shell command ended",
        "file.written": "a file was created or changed",
        "file.read": "a file was read",
        "file.deleted": "a file was deleted",
        "log.updated": "the work log or decision log grew",
        "tests.started": "a test run began",
        "tests.completed": "a test run ended",
        "usage.recorded": "tokens and cost of this turn",
        "limits.reported": "a rate limit that the backend reported",
        "budget.warned": "a budget is nearly spent",
        "budget.spent": "a budget is spent",
        "output.recorded": "text that the agent's program printed",
        "agent.custom": "something else that the agent or backend reported, kept as it was",
        "approval.requested": "a decision is asked for",
        "approval.resolved": "a decision was taken",
        "approval.expired": "nobody decided in time; the default was applied",
        "approval.cancelled": "the question has become pointless",
        "child.queued": "a child run was queued",
        "child.completed": "a child run ended",
        "child.cancelled": "a child run was stopped",
        "error.recorded": "something went wrong that did not end the turn",
        "session.created": "the session was made",
        "session.updated": "the session's name, variables or configuration changed",
        "session.suspended": "the session was suspended",
        "session.resumed": "the session was resumed",
        "session.completed": "the session was completed",
        "session.expired": "the session expired",
        "session.message_received": "a message reached the session and waits for its turn",
        "session.message_taken": "a turn began with a message, or it was put into a running turn",
        "session.message_removed": "a message was taken back before its turn",
        "session.shared": "the session was opened to a user, or by a link",
        "session.unshared": "a share was revoked",
        "run.linked": "a run was started in this session",
        "run.settled": "a run of this session ended",
    }
)
FINAL_TYPES: Final = frozenset({"run.completed", "run.failed", "run.cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event that has not been recorded yet: it has no seq and no time."""

    type: str
    data: Mapping[str, object] = field(default_factory=dict)
    turn: int | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded event as it travels: its seq and type, and its canonical JSON."""

    seq: int
    type: str
    body: bytes


def encode(draft: Draft, *, seq: int, run_id: str | None, session_id: str | None, at: int) -> bytes:
    """The canonical JSON of a recorded event: fixed member order, sorted keys inside `data`, UTF-8, no spaces.

    `at` is wall milliseconds. Lone surrogates and integers beyond 64 bits cannot be in canonical JSON (RFC 8785):
    they are replaced by U+FFFD and by their decimal text.
    """
    head = {
        "seq": seq,
        "type": draft.type,
        "run_id": run_id,
        "session_id": session_id,
        "at": rfc3339(at),
        "turn": draft.turn,
        "attempt": draft.attempt,
    }
    return b'%b,"data":%b}' % (orjson.dumps(head)[:-1], canonical(draft.data))


def canonical(document: object) -> bytes:
    """`document` as compact UTF-8 JSON with sorted keys; mends what JSON cannot hold, see `encode`."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):
        return orjson.dumps(_mended(document), option=orjson.OPT_SORT_KEYS)


def _mended(value: object) -> object:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, Mapping):
        return {_SURROGATE.sub("\ufffd", str(key)): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return str(value)


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
Upcast = Callable[[dict[str, object]], dict[str, object]]
_UPCASTS: dict[int, Upcast] = {}
"""From version n to n + 1. Version 1 is the first, so there is none yet."""


def upcast(body: bytes, version: int) -> bytes:
    """The event in today's shape. Bytes of today's version come back untouched (and unparsed)."""
    if version >= SCHEMA_VERSION:
        return body
    document = orjson.loads(body)
    for step in range(version, SCHEMA_VERSION):
        document = _UPCASTS[step](document)
    return canonical(document)
