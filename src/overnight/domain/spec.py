"""What a run is given: the body of `POST /runs`, and, with every default filled in, the run's frozen configuration."""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

MAX_GOAL = 200_000
"""Characters of a goal."""
NEEDS: Final = "worker/"
"""A run's label that begins so names a label that its worker must bear."""
MOST_NEED: Final = 2_000
"""Bytes of these as JSON: they are looked up by an index, which takes no long ones."""

Name = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$")
]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
Mode = Literal["oneshot", "continuous", "chat", "plan"]
"""How a run proceeds. What the operator has made of them under names of his own are profiles, see `domain.mode`."""
ModeName = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[a-z][a-z0-9_-]*$")]
Sandbox = Literal["read_only", "workspace_write", "full_access"]
Effort = Literal["low", "medium", "high"]
ApprovalPolicy = Literal["autonomous", "ask_all", "ask_writes", "ask_outside_workspace", "plan_review"]
ApprovalKind = Literal[
    "plan", "step", "tool_call", "file_edit", "command", "question", "budget", "error_recovery"
]


class Document(BaseModel):
    """A frozen JSON document that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class GitWorkspace(Document):
    """A workspace that the claiming worker checks out itself."""

    git: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    ref: Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^-].*$")] = "HEAD"


class CompletionSpec(Document):
    """When a continuous run is done."""

    pattern: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    log: RelativePath = "WORKLOG.md"
    scan_lines: Annotated[int, Field(ge=0, le=100_000)] = 50
    stop_file: RelativePath | None = ".overnight/stop"
    idle_turns: Annotated[int, Field(ge=0, le=10_000)] = 3


class LimitsSpec(Document):
    """How far a run may go. None means no limit."""

    turns: Count | None = 50
    tokens: Count | None = None
    cost_usd: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    wall_clock_s: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = None
    turn_timeout_s: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] = 3600
    output_bytes: Annotated[int, Field(ge=1024, le=1 << 40)] = 1_073_741_824
    children: Annotated[int, Field(ge=1, le=100_000)] = 500
    events: Annotated[int, Field(ge=100, le=100_000_000)] = 2_000_000
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    on_spent: Literal["ask", "finish", "fail"] = "ask"


class PromptSpec(Document):
    """What goes into the prompt of a continuous turn besides the goal."""

    instructions: Annotated[str, StringConstraints(max_length=200_000)] | None = None
    decision_log: RelativePath = "DECISIONS.md"
    questions: RelativePath = "QUESTIONS.md"
    references: Annotated[tuple[RelativePath, ...], Field(max_length=100)] = ()


class WatchSpec(Document):
    """Which files are watched while a turn runs (globs relative to the workspace)."""

    include: Annotated[tuple[RelativePath, ...], Field(max_length=100)] = ("**",)
    exclude: Annotated[tuple[RelativePath, ...], Field(max_length=100)] = (".git/**",)


Patience = Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)]


class ApprovalsSpec(Document):
    """How long approvals stay open before their default decision is applied; None: the operator's default."""

    expires_s: Patience | None = None
    expires: dict[ApprovalKind, Patience] = Field(default_factory=dict)
    """For single kinds."""


class RunSpec(Document):
    """Only `goal` is required. Once resolved at submission, `backend` is always set."""

    goal: Annotated[str, StringConstraints(min_length=1, max_length=MAX_GOAL)]
    mode: ModeName = "continuous"
    """One of `Mode` in a resolved spec; a caller may also name a profile."""
    profile: ModeName | None = None
    """The profile that `mode` named; set at submission, never by a caller."""
    backend: Name | None = None
    fallback: Annotated[tuple[Name, ...], Field(max_length=10)] = ()
    agent: Name | None = None
    session_id: str | None = None
    workspace: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | GitWorkspace | None = None
    workspace_lock: Literal["exclusive", "shared"] = "exclusive"
    model: Name | None = None
    effort: Effort | None = None
    sandbox: Sandbox = "workspace_write"
    approval_policy: ApprovalPolicy = "autonomous"
    approvals: ApprovalsSpec = ApprovalsSpec()
    environment: Annotated[dict[str, str], Field(max_length=200)] = Field(default_factory=dict)
    secrets: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    loop_delay_s: Seconds = 0
    completion: CompletionSpec = CompletionSpec()
    limits: LimitsSpec = LimitsSpec()
    prompt: PromptSpec = PromptSpec()
    watch: WatchSpec = WatchSpec()
    labels: Annotated[dict[Label, Label], Field(max_length=50)] = Field(default_factory=dict)
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    not_before: str | None = None

    @field_validator("goal")
    @classmethod
    def _goal_says_something(cls, goal: str) -> str:
        if not goal.strip():
            raise ValueError("the goal is blank")
        if "\x00" in goal:
            raise ValueError("the goal contains a NUL character")
        return goal

    @field_validator("labels")
    @classmethod
    def _workers_are_named_briefly(cls, labels: dict[str, str]) -> dict[str, str]:
        need = {name: value for name, value in labels.items() if name.startswith(NEEDS)}
        if len(json.dumps(need)) > MOST_NEED:
            raise ValueError(f"the labels {NEEDS}… are longer than {MOST_NEED:,} bytes together")
        return labels

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
