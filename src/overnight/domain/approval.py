"""An approval: a durable question about an action, decided once, for exactly what was shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from overnight.domain.action import Action
from overnight.domain.rule import Rule
from overnight.domain.spec import ApprovalKind
from overnight.ids import ApprovalId, RunId, SessionId

ApprovalState = Literal["pending", "resolved", "expired", "cancelled"]
OptionKind = Literal[
    "allow_once", "allow_always", "reject_once", "reject_always", "raise", "finish", "cancel", "answer"
]
"""`answer`: an option of the question's own. `raise`, `finish` and `cancel` decide about a spent budget."""

ALLOWING: Final = frozenset({"allow_once", "allow_always", "raise"})
REJECTING: Final = frozenset({"reject_once", "reject_always"})
LASTING: Final = frozenset({"allow_always", "reject_always"})
"""Decisions that write a rule for the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to decide. `rule`: what this option would write for the session."""

    id: str
    label: str
    kind: OptionKind
    rule: Rule | None = None

    def to_json(self) -> dict[str, object]:
        """The wire's option."""
        found: dict[str, object] = {"id": self.id, "label": self.label, "kind": self.kind}
        return found if self.rule is None else {**found, "rule": self.rule.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided. `by`: the actor; `system` when nobody decided in time."""

    option: str
    feedback: str | None = None
    changes: Mapping[str, object] | None = None
    by: str

    def to_json(self) -> dict[str, object]:
        """The wire's decision."""
        return {"option": self.option, "feedback": self.feedback, "changes": self.changes, "by": self.by}

    def same(self, other: Decision) -> bool:
        """Whether it decides the same, whoever decided."""
        mine = (self.option, self.feedback, self.changes or None)
        return mine == (other.option, other.feedback, other.changes or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One row of the approvals table. Times are wall milliseconds."""

    pk: int
    id: ApprovalId
    owner: str
    run_pk: int
    run_id: RunId
    session_pk: int
    session_id: SessionId
    turn: int | None = None
    attempt: int | None = None
    request: str | None = None
    """Key of the agent's own request within that turn attempt; None when Overnight itself asks."""
    kind: ApprovalKind
    title: str
    context: Mapping[str, object] = field(default_factory=dict)
    """What a person sees: action, resolved places, diff, and whether the sandbox makes the decision binding."""
    action: Action | None = None
    """What will happen if it is allowed; resolved anew when the decision is taken and when it is released."""
    digest: str
    options: tuple[Option, ...]
    state: ApprovalState = "pending"
    decision: Decision | None = None
    default_option: str
    """Applied when `expires_at` has passed."""
    expires_at: int
    created_at: int
    resolved_at: int | None = None
    used_at: int | None = None
    """When an allow-once was released to an agent: it covers an equal action once within its run."""

    def option(self, option_id: str) -> Option | None:
        """The option with that id."""
        return next((option for option in self.options if option.id == option_id), None)

    @property
    def chosen(self) -> Option | None:
        """The option that was decided on."""
        return None if self.decision is None else self.option(self.decision.option)
