"""What a tool of the agent is: its description, what it is given to work with, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from overnight.agent.tools.workspace import Workspace

Permission = Literal["read", "write", "execute"]

ErrorCode = Literal[
    "tool_not_found", "invalid_arguments", "tool_timeout", "tool_unavailable", "tool_execution_error"
]
"""The words that the tool protocol has for what went wrong."""

PlanStatus = Literal["pending", "in_progress", "completed"]
ChangeKind = Literal["created", "modified", "deleted"]


class ForModel(Exception):
    """A tool cannot do what was asked; the model is told `text` and may try something else."""

    def __init__(self, text: str, *, code: ErrorCode = "tool_execution_error") -> None:
        super().__init__(text)
        self.text = text
        self.code: ErrorCode = code


class Fatal(Exception):
    """The ground that tools stand on is gone (the workspace itself, the agent's own folder): the turn must end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What a model and whoever grants permissions are told about a tool."""

    name: str
    description: str
    parameters: Mapping[str, object]
    """JSON Schema of the arguments: an object without further members."""
    parallel_safe: bool
    """Whether several calls may run side by side: true of those that only look."""
    is_destructive: bool
    required_permissions: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One line of the agent's plan."""

    text: str
    status: PlanStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChanged:
    """The agent's plan is now this."""

    explanation: str
    steps: tuple[PlanStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChanged:
    """What becomes of one file. `path` is relative to the workspace; texts are None where there is no file."""

    path: str
    kind: ChangeKind
    old_text: str | None = None
    new_text: str | None = None
    moved_from: str | None = None
    diff: str = ""
    """Unified, with one line of context."""


ToolEvent = PlanChanged | FileChanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture for the model to look at."""

    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome:
    """The one answer to a call. `text` is what the model reads; the rest is for people and programs."""

    text: str
    ok: bool = True
    code: ErrorCode | None = None
    """Set where it is not ok."""
    structured: Mapping[str, object] = field(default_factory=dict)
    images: tuple[Image, ...] = ()
    events: tuple[ToolEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a call would do, found out without doing it: for whoever decides whether it may."""

    title: str
    paths: tuple[str, ...] = ()
    """Relative to the workspace."""
    command: str | None = None
    changes: tuple[FileChanged, ...] = ()
    digest: str | None = None
    """Of exactly what would be written; `ToolContext.approved` holds the tool to it."""


def _unheard(_text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a call is given to work with.

    There is no cancel token: cancel the task that awaits the tool. Each tool leaves nothing half done and nothing
    running before the cancellation goes on.
    """

    workspace: Workspace
    folder: Path
    """The agent's own folder, outside the workspace: here are the full outputs of commands."""
    journals: Path | None = None
    """Where patches under way are written down; a folder in `folder` if not given. A patch that was killed is taken
    back by whoever has the same one: let it be one that every agent of a session comes back to."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The agent's environment; commands get it without what looks like a secret."""
    kept: frozenset[str] = frozenset()
    """Variables that commands get although they look like secrets."""
    call_id: str = "call"
    progress: Callable[[str], None] = _unheard
    """Is told what a command prints, as it does. Called on the event loop; must not block."""
    approved: str | None = None
    """The digest of the preview that was approved, where there was one."""


class Tool(Protocol):
    """One thing that the agent can do. Arguments have been checked against `spec.parameters` before each call."""

    @property
    def spec(self) -> ToolSpec:
        """Never changes."""
        ...

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """What `run` would do now. Changes nothing. Raises ForModel where `run` would."""
        ...

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Do it. Raises ForModel for what the model should hear, Fatal for what ends the turn."""
        ...
