"""Updates: what a backend reports before it is recorded. Codecs make them, the turn loop records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overnight.domain.action import Action
from overnight.domain.values import Failure, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKnown:
    """The backend's own session state, to be stored for (session, backend) and given back on the next turn."""

    state: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A whole message of the agent."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """A whole block of reasoning."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A fragment for live display only; `offset` counts characters from the start of the item."""

    kind: Literal["message", "reasoning", "output"]
    item_id: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    """A tool call began. `command` is set when it is a shell command."""

    item_id: str
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCompleted:
    """A tool call ended. `command` as in `ToolStarted`; `exit_code` None when the backend does not tell."""

    item_id: str
    name: str
    ok: bool
    output: str = ""
    command: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTouched:
    """The backend says that it touched a file. `path` as reported: absolute or relative to the workspace."""

    path: str
    kind: Literal["created", "modified", "deleted", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReported:
    """The agent's own plan: entries `{text, status}`."""

    entries: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReported:
    """Usage of this turn so far (the last report of a turn counts)."""

    usage: Usage
    source: Literal["backend", "agent"] = "backend"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsReported:
    """A rate limit that the backend saw."""

    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something went wrong that does not end the turn (a retry, a missing feature)."""

    code: str
    message: str
    retryable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A line (or a last piece without line end) that is not part of the backend's protocol, as raw bytes.

    `total` is the length of the whole line when only its head is here because it is over the line limit.
    """

    stream: Literal["stdout", "stderr"]
    data: bytes
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One of a question's own answers."""

    id: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The agent waits for leave to act, or for an answer. Whoever reads must `BackendTurn.answer` it, sooner or later.

    `key` names the request within the turn's attempt, the same after a replay. `answers` is empty for an action that
    is allowed or rejected, else the question's own.
    """

    key: str
    action: Action
    item_id: str | None = None
    """The tool call that it belongs to."""
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """The agent no longer waits for the answer to `key`."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A backend event that Overnight has no name for, kept raw."""

    name: str
    data: Mapping[str, object]


Update = (
    SessionKnown
    | Message
    | Reasoning
    | Delta
    | ToolStarted
    | ToolCompleted
    | FileTouched
    | PlanReported
    | UsageReported
    | LimitsReported
    | Warned
    | Output
    | Asked
    | Withdrawn
    | Custom
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOutcome:
    """How a turn ended. Exactly one of `stop_reason` and `failure` is set.

    `done` is the backend's own verdict on the goal: True when it says that the work is finished.
    """

    stop_reason: str | None = None
    failure: Failure | None = None
    done: bool = False
