"""What the operator has decided: defaults, ceilings, clocks. Made by configuration, never by a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overnight.domain.mode import Modes
from overnight.domain.redaction import Redactor
from overnight.domain.rule import Rule
from overnight.domain.session import Session, SessionState
from overnight.domain.spec import ApprovalKind, ApprovalPolicy, ApprovalsSpec, LimitsSpec, Sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicy:
    """Defaults and ceilings for runs."""

    default_backend: str
    max_sandbox: Sandbox = "full_access"
    min_policy: ApprovalPolicy = "autonomous"
    max_limits: LimitsSpec | None = None
    """A run's limit above this one is refused; a limit of None in a run is above any number here."""
    require_sandbox: bool = False
    allow_environment: tuple[str, ...] = ("OVERNIGHT_VAR_*",)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values that the operator holds, by name; a run names them in `secrets`."""
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """More values that no event may show, such as the keys that a backend is given."""
    approval_expires_s: float = 86_400.0
    """When nobody has decided for so long, an approval's default decision is applied."""
    approval_expires: Mapping[ApprovalKind, float] = field(default_factory=dict)
    """The same for single kinds of approvals."""
    park_after_s: float = 900.0
    """An agent that waits for a person for so long is stopped; the decision starts its turn again."""
    modes: Modes = field(default_factory=Modes)
    """How runs may proceed, profiles included."""
    rules: tuple[Rule, ...] = ()
    """Standing answers to what agents want to do; a session's own come on top."""

    def expires_s(self, kind: ApprovalKind, wanted: ApprovalsSpec) -> float:
        """How long a question of that kind stays open for a run that asked for `wanted`."""
        fallback = self.approval_expires.get(kind, self.approval_expires_s)
        return wanted.expires.get(kind, fallback if wanted.expires_s is None else wanted.expires_s)

    def redactor(self, environment: Iterable[str] = ()) -> Redactor:
        """Hides what the operator keeps to himself, and the values that one run was given as environment."""
        return Redactor([*self.secrets.values(), *self.hidden, *environment])


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Clocks of a worker. Seconds."""

    lease_s: float = 15.0
    renew_s: float = 3.0
    grace_s: float = 5.0
    poll_s: float = 1.0
    """The slow poll behind every notification: a lost notice costs at most this."""
    heartbeat_s: float = 10.0
    backoff_s: float = 2.0
    """First wait after a retryable backend failure; doubles, at most 300."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """How long a session without a live run may be left alone before it expires."""

    active_hours: float = 24.0
    suspended_days: float = 30.0

    def patience_ms(self, state: SessionState) -> int | None:
        """For a session in that state; None: for ever."""
        hours = {"active": self.active_hours, "suspended": self.suspended_days * 24}.get(state)
        return None if hours is None else round(hours * 3_600_000)

    def expires_at(self, session: Session) -> int | None:
        """When it expires if nothing touches it, in wall milliseconds; None: never."""
        patience = self.patience_ms(session.state)
        return None if patience is None else session.updated_at + patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How long and how much is kept."""

    data_dir: Path
    retention_days: float = 30.0
    max_bytes: int | None = None
    reserve_bytes: int = 256 * 1024 * 1024
    """Below this much free disk new work is refused with 507."""
