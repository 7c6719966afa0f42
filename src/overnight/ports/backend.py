"""The port between the engine and every kind of agent program.

The engine sees a backend as something that starts a turn, or takes up a turn that lives on, and then gives batches of
updates until the turn has ended. How the agent's process is owned (a keeper) is the adapter's business.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.run import Position
from overnight.domain.spec import ApprovalPolicy, Effort, Sandbox
from overnight.domain.update import Asked, TurnOutcome, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLimits:
    """What the keeper enforces by its own clock, even while no server lives."""

    timeout_s: float
    output_bytes: int
    children: int
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStart:
    """Everything that is needed to start one attempt at one turn, or to take it up again."""

    run_id: str
    turn: int
    attempt: int
    token: int
    folder: Path
    """Absolute; exists; belongs to this attempt alone."""
    workspace: Path
    workspace_id: str | None = None
    """`device:inode` of the workspace that was checked, so that a sandbox can refuse another one; None: any."""
    home: Path
    """HOME of (session, backend); kept as long as the session. It and the workspace exist for backends that work in a
    workspace, or where the run has one."""
    prompt: str
    model: str | None = None
    effort: Effort | None = None
    sandbox: Sandbox = "workspace_write"
    approval_policy: ApprovalPolicy = "autonomous"
    """Whether the agent is to ask before it acts; under `autonomous` it need not."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the run adds; checked against the allow-list already."""
    resume: Mapping[str, object] = field(default_factory=dict)
    """The last `SessionKnown.state` of (session, backend); empty for a new one."""
    limits: TurnLimits
    position: Position = field(default_factory=Position)
    """What has been recorded; zero for a fresh start."""
    inputs_sent: int = 0
    """Number of the last stdin message that is stored for this turn."""
    inputs: tuple[tuple[int, bytes], ...] = ()
    """The stored stdin messages, for an adoption: those that the agent has not been given are sent again."""
    held_until: Callable[[], float] = lambda: math.inf
    """Boot-clock second until which the hold is good now; every renewal moves it. By then the agent has to be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Updates that belong together, and the position after them: both are recorded in one transaction."""

    updates: tuple[Update, ...]
    position: Position
    final: bool = False
    """What is said at the very end, and would be said again by whoever finds the turn ended: it is recorded together
    with the turn's settlement, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What the ladder did. `survivors` None: nobody could look."""

    steps: tuple[str, ...] = ()
    survivors: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a turn's process ended; the last thing a turn says."""

    outcome: TurnOutcome
    stopped: Stopped | None = None
    """Set when the ladder ran, by whomever it was asked for."""
    cause: Literal["exit", "stopped", "deadline", "output_limit", "children_limit", "fenced"] = "exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an agent is told about something that it asked."""

    allow: bool
    option: str | None = None
    """The question's own answer, by its id; None for leave or refusal."""
    feedback: str = ""
    """Why not, or what else to do, where the program can take it."""


StoreInput = Callable[[int, bytes], Awaitable[None]]
"""Stores stdin message n durably before it is sent; given by the engine."""


class BackendTurn(Protocol):
    """A turn that is under way. One reader; the other calls may come from anywhere in the same event loop."""

    @property
    def pid(self) -> int | None:
        """The agent's process, where there is one."""
        ...

    def batches(self) -> AsyncIterator[Batch]:
        """Updates as they arrive, each once, in order; ends when the process is gone and all output has been read.

        Backpressure is the reader's own pace; the agent is never blocked by it.
        """
        ...

    def ended(self) -> Ended:
        """How it ended; only after `batches()` has ended."""
        ...

    async def renew(self, sent_at: float, lease_s: float) -> None:
        """Tell the keeper that the lease was renewed. Raises LeaseLost when the keeper has a newer token."""
        ...

    def open_asks(self) -> tuple[Asked, ...]:
        """What the agent has asked up to the position of the last batch (or of the adoption) and was not answered."""
        ...

    async def answer(self, key: str, verdict: Verdict) -> bool:
        """Tell the agent what became of its request `key`; durable before it is sent, and sent once.

        What an allowed request wants Overnight itself to do (a file, a terminal) is done now. False when no such
        request is open: it was answered before, or withdrawn, or the agent is gone.
        """
        ...

    async def extend(self, deadline: float) -> None:
        """Move the turn's own deadline to that second of the boot-time clock; for time spent waiting for a person."""
        ...

    async def inject(self, text: str) -> bool:
        """Send text into the running turn; False when this backend cannot, or the turn is past it."""
        ...

    async def stop(self, *, reason: str, interrupt: bool) -> None:
        """Run the control ladder (the backend's own interrupt first when `interrupt`). Idempotent; `batches()` ends.

        Raises LeaseLost when the keeper has a newer token.
        """
        ...

    async def release(self) -> None:
        """The end has been recorded: the keeper may go. Idempotent."""
        ...

    async def leave(self) -> None:
        """Let go without touching the agent (handover, or a lost lease). Idempotent; `batches()` ends."""
        ...


class Backend(Protocol):
    """Adapter for one kind of agent program. Safe to use for many turns at once."""

    @property
    def name(self) -> str:
        """The name that runs use."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    async def check(self) -> BackendCheck:
        """The preflight: program, version, login or key, sandbox. Never raises for a backend that is not ready."""
        ...

    def stamp(self) -> str:
        """A cheap fingerprint of program and configuration; a cached check with another stamp is stale."""
        ...

    async def start(self, start: TurnStart, store_input: StoreInput) -> BackendTurn:
        """Begin a turn. Raises BackendFailure when the program cannot be started."""
        ...

    async def adopt(self, start: TurnStart, store_input: StoreInput) -> BackendTurn | None:
        """Take up a turn that another server left, under `start.token`; replays silently up to `start.position`.

        Also when the agent has ended meanwhile and only its record and files are left. None when neither the keeper
        nor its record is there: then whatever is left of the turn has been swept away before this returns.
        """
        ...
