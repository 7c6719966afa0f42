"""What a run is given: the body of `POST /runs`, and, with every default filled in, the run's frozen configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from overnight.domain.documents import STRICT, Fits, Given, Passes

MAX_GOAL = 200_000
"""Characters of a goal."""
NEEDS: Final = "worker/"
"""A run's label that begins so names a label that its worker must bear."""
MOST_NEED: Final = 2_000
"""Bytes of these as JSON: they are looked up by an index, which takes no long ones."""

Name = Annotated[str, Fits(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$")]
Label = Annotated[str, Fits(min_length=1, max_length=200)]
RelativePath = Annotated[str, Fits(min_length=1, max_length=1000)]
Count = Annotated[int, Fits(ge=1, le=1_000_000_000)]
Seconds = Annotated[float, Fits(ge=0, le=31_536_000, allow_inf_nan=False)]
Mode = Literal["oneshot", "continuous", "chat", "plan"]
"""How a run proceeds. What the operator has made of them under names of his own are profiles, see `domain.mode`."""
ModeName = Annotated[str, Fits(min_length=1, max_length=50, pattern=r"^[a-z][a-z0-9_-]*$")]
Sandbox = Literal["read_only", "workspace_write", "full_access"]
Effort = Literal["low", "medium", "high"]
ApprovalPolicy = Literal["autonomous", "ask_all", "ask_writes", "ask_outside_workspace", "plan_review"]
ApprovalKind = Literal[
    "plan", "step", "tool_call", "file_edit", "command", "question", "budget", "error_recovery"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GitWorkspace:
    """A workspace that the claiming worker checks out itself."""

    __pydantic_config__: ClassVar[Any] = STRICT

    git: Annotated[str, Fits(min_length=1, max_length=2000)]
    ref: Annotated[str, Fits(min_length=1, max_length=300, pattern=r"^[^-].*$")] = "HEAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionSpec(Given):
    """When a continuous run is done."""

    pattern: Annotated[str, Fits(min_length=1, max_length=2000)] | None = None
    log: RelativePath = "WORKLOG.md"
    scan_lines: Annotated[int, Fits(ge=0, le=100_000)] = 50
    stop_file: RelativePath | None = ".overnight/stop"
    idle_turns: Annotated[int, Fits(ge=0, le=10_000)] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSpec(Given):
    """How far a run may go. None means no limit."""

    turns: Count | None = 50
    tokens: Count | None = None
    cost_usd: Annotated[float, Fits(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    wall_clock_s: Annotated[float, Fits(gt=0, le=31_536_000, allow_inf_nan=False)] | None = None
    turn_timeout_s: Annotated[float, Fits(gt=0, le=604_800, allow_inf_nan=False)] = 3600.0
    output_bytes: Annotated[int, Fits(ge=1024, le=1 << 40)] = 1_073_741_824
    children: Annotated[int, Fits(ge=1, le=100_000)] = 500
    events: Annotated[int, Fits(ge=100, le=100_000_000)] = 2_000_000
    attempts: Annotated[int, Fits(ge=1, le=100)] = 3
    on_spent: Literal["ask", "finish", "fail"] = "ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSpec(Given):
    """What goes into the prompt of a continuous turn besides the goal."""

    instructions: Annotated[str, Fits(max_length=200_000)] | None = None
    decision_log: RelativePath = "DECISIONS.md"
    questions: RelativePath = "QUESTIONS.md"
    references: Annotated[tuple[RelativePath, ...], Fits(max_length=100)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSpec(Given):
    """Which files are watched while a turn runs (globs relative to the workspace)."""

    include: Annotated[tuple[RelativePath, ...], Fits(max_length=100)] = ("**",)
    exclude: Annotated[tuple[RelativePath, ...], Fits(max_length=100)] = (".git/**",)


def _says_something(goal: str) -> str:
    if not goal.strip():
        raise ValueError("the goal is blank")
    if "\x00" in goal:
        raise ValueError("the goal contains a NUL character")
    return goal


def _names_workers_briefly(labels: Mapping[str, str]) -> Mapping[str, str]:
    need = {name: value for name, value in labels.items() if name.startswith(NEEDS)}
    if len(json.dumps(need)) > MOST_NEED:
        raise ValueError(f"the labels {NEEDS}… are longer than {MOST_NEED:,} bytes together")
    return labels


Labels = Annotated[dict[Label, Label], Fits(max_length=50), Passes(_names_workers_briefly)]
Patience = Annotated[float, Fits(ge=1, le=31_536_000, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalsSpec(Given):
    """How long approvals stay open before their default decision is applied; None: the operator's default."""

    expires_s: Patience | None = None
    expires: dict[ApprovalKind, Patience] = field(default_factory=dict)
    """For single kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec(Given):
    """Only `goal` is required. Once resolved at submission, `backend` is always set."""

    goal: Annotated[str, Fits(min_length=1, max_length=MAX_GOAL), Passes(_says_something)]
    mode: ModeName = "continuous"
    """One of `Mode` in a resolved spec; a caller may also name a profile."""
    profile: ModeName | None = None
    """The profile that `mode` named; set at submission, never by a caller."""
    backend: Name | None = None
    fallback: Annotated[tuple[Name, ...], Fits(max_length=10)] = ()
    agent: Name | None = None
    session_id: str | None = None
    workspace: Annotated[str, Fits(min_length=1, max_length=4000)] | GitWorkspace | None = None
    workspace_lock: Literal["exclusive", "shared"] = "exclusive"
    model: Name | None = None
    effort: Effort | None = None
    sandbox: Sandbox = "workspace_write"
    approval_policy: ApprovalPolicy = "autonomous"
    approvals: ApprovalsSpec = ApprovalsSpec()
    environment: Annotated[dict[str, str], Fits(max_length=200)] = field(default_factory=dict)
    secrets: Annotated[tuple[Name, ...], Fits(max_length=100)] = ()
    loop_delay_s: Seconds = 0.0
    completion: CompletionSpec = CompletionSpec()
    limits: LimitsSpec = LimitsSpec()
    prompt: PromptSpec = PromptSpec()
    watch: WatchSpec = WatchSpec()
    labels: Labels = field(default_factory=dict)
    priority: Annotated[int, Fits(ge=-1000, le=1000)] = 0
    not_before: str | None = None

    @property
    def keeps_logs(self) -> bool:
        """Whether it goes on turn after turn by its logs, until a condition of its own is met."""
        return self.mode == "continuous"

    @property
    def backend_name(self) -> str:
        """The backend of a resolved spec. Raises ValueError before resolution."""
        if self.backend is None:
            raise ValueError("the spec has not been resolved: it names no backend")
        return self.backend
