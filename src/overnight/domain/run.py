"""A run: one durable piece of work, from submit to outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Final

from overnight.domain.spec import LimitsSpec, RunSpec
from overnight.domain.states import FINAL, Input, State, TurnState, advance
from overnight.domain.values import (
    Cancellation,
    Completion,
    Failure,
    FileStats,
    Now,
    PauseReason,
    Stats,
    TestStats,
    Usage,
    WaitingFor,
)
from overnight.ids import HostId, RunId, SessionId, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row of the runs table. Times are wall milliseconds; `pk` is also the key of the run's event stream."""

    pk: int
    id: RunId
    owner: str
    state: State
    spec: RunSpec
    """Frozen and resolved at submission; environment values are masked here."""
    session_pk: int
    session_id: SessionId
    parent_id: RunId | None = None
    retry_of: RunId | None = None
    host_id: HostId
    """The host that holds it, or held it last; before that the one that it was submitted to."""
    place: str = ""
    """Where it may be carried out, see `domain.placement`; empty: on `host_id`, which the store then writes down."""
    workspace: str | None
    """Absolute path once known (a git workspace has none before its first claim)."""
    worker: WorkerId | None = None
    pid: int | None = None
    created_at: int
    updated_at: int
    started_at: int | None = None
    ended_at: int | None = None
    last_event_at: int | None = None
    token: int = 0
    """Fencing number of the present or last hold."""
    attempt: int = 1
    """Try at the current turn, from 1."""
    turn: int = 0
    """The current or last turn, from 1; 0 before the first."""
    fallback: int = 0
    """0: the backend asked for; n: the n-th of `spec.fallback`."""
    stats: Stats = field(default_factory=Stats)
    idle_turns: int = 0
    completion: Completion | None = None
    error: Failure | None = None
    waiting_for: WaitingFor | None = None
    waiting_until: int | None = None
    """When the default decision is applied."""
    waiting_since: int | None = None
    """When it began to wait for a person."""
    pause_reason: PauseReason | None = None
    cancellation: Cancellation | None = None
    not_before: int | None = None
    """Not claimed earlier: the caller's `not_before`, a loop delay, or a back-off."""
    raised_limits: LimitsSpec | None = None
    """The limits in force once somebody raised a spent budget; the spec itself stays frozen."""
    sandbox_effective: str = "none"
    now: Now | None = None
    last_seq: int = 0
    change: int = 0
    """Position in the server's order of run changes: the cursor of the summaries stream."""

    @property
    def final(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state in FINAL

    @property
    def limits(self) -> LimitsSpec:
        """The limits in force: those raised by a decision, else those of the spec."""
        return self.raised_limits or self.spec.limits

    @property
    def backend(self) -> str:
        """The backend in use now: the one asked for, or the fallback reached."""
        return self.target[0]

    @property
    def model(self) -> str | None:
        """The model in use now, if one was named."""
        return self.target[1]

    @property
    def target(self) -> tuple[str, str | None]:
        """Backend and model in use now; `fallback` entries read `backend/model` or `backend`."""
        if self.fallback == 0:
            return self.spec.backend_name, self.spec.model
        name, _, model = self.spec.fallback[self.fallback - 1].partition("/")
        return name, model or None

    def but(self, **changes: object) -> Run:
        """The run with other values in these fields: what `replace` gives, for half its price. Several of them are made
        whenever a run is claimed or settled. Raises AttributeError for a field that is none.
        """
        made = object.__new__(Run)
        for put, value in zip(_PUT, _FIELDS(self), strict=True):
            put(made, value)
        for name, value in changes.items():
            object.__setattr__(made, name, value)
        return made

    def moved(self, input: Input, now_ms: int, **changes: object) -> Run:
        """The run after `input`, with `changes` to other fields.

        Final states get `ended_at` and lose what only a living run has. Raises `InvalidTransition`.
        """
        state = advance(self.state, input)
        if state in FINAL:
            changes = {"ended_at": now_ms, "waiting_for": None, "waiting_until": None, "now": None, **changes}
            changes |= {"worker": None, "pid": None, "not_before": None, "waiting_since": None}
        return self.but(state=state, updated_at=now_ms, **changes)


_NAMES: Final = tuple(each.name for each in fields(Run))
_FIELDS: Final = attrgetter(*_NAMES)
_PUT: Final = tuple(getattr(Run, name).__set__ for name in _NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a turn's output has been recorded: byte offsets into its files (whole lines only)."""

    stdout: int = 0
    stderr: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One row of the turns table: one attempt at one turn. `(run_pk, number, attempt)` is the key."""

    run_pk: int
    number: int
    attempt: int
    state: TurnState
    backend: str
    model: str | None = None
    token: int
    folder: str
    """Relative to the data directory; holds prompt.md, stdout, stderr and the keeper's files."""
    pid: int | None = None
    started_at: int
    ended_at: int | None = None
    first_seq: int
    """Of `turn.started`; 0 while the agent has not been started yet."""
    last_seq: int | None = None
    position: Position = field(default_factory=Position)
    stop_reason: str | None = None
    error: Failure | None = None
    usage: Usage | None = None
    files: FileStats | None = None
    tests: TestStats | None = None
    items: int = 0
    last_message: str | None = None
    """First line of the last message."""
    blocked_ms: int = 0
    """How long of it a person was waited for; no clock of a limit ran meanwhile."""
    resume_before: Mapping[str, object] = field(default_factory=dict)
    """The backend's session state with which this turn was started; adoption replays from it."""
