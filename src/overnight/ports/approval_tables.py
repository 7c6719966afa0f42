"""What a transaction offers about approvals. As in `ports.tables`: all calls are synchronous, `pk` is an integer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from overnight.domain.approval import Approval, ApprovalState
from overnight.domain.rule import Rule
from overnight.ids import ApprovalId


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFilter:
    """Which approvals; every field that is set must match."""

    owner: str | None = None
    states: tuple[ApprovalState, ...] = ()
    run_id: str | None = None
    session_id: str | None = None


class ApprovalTable(Protocol):
    """Questions to people, and the rules that answers have left."""

    def add(self, approval: Approval) -> Approval:
        """Store; `approval.pk` is ignored."""
        ...

    def get(self, approval_id: ApprovalId, owner: str | None) -> Approval:
        """Raises NotFound, also for another owner's."""
        ...

    def save(self, approval: Approval) -> None:
        """Write all that can change: context, digest, options, state, decision and times."""
        ...

    def page(
        self, filter: ApprovalFilter, *, limit: int, after: tuple[int, int] | None = None
    ) -> tuple[Approval, ...]:
        """Newest first by (created_at, pk)."""
        ...

    def pending(self, run_pk: int) -> tuple[Approval, ...]:
        """Those of a run that are open, oldest first."""
        ...

    def of_request(self, run_pk: int, turn: int, attempt: int, request: str) -> Approval | None:
        """The one that an agent's own request has opened."""
        ...

    def unused_allowance(self, run_pk: int, digest: str, *, turn: int, attempt: int) -> Approval | None:
        """An allow-once for exactly that action which an agent before this turn's attempt has asked and not got."""
        ...

    def overdue(self, now_ms: int, limit: int) -> tuple[Approval, ...]:
        """Open ones whose time has passed, oldest first."""
        ...

    def add_rule(self, session_pk: int, rule: Rule, *, approval_pk: int, by: str, at: int) -> None:
        """A standing answer for the session; the same rule twice is one."""
        ...

    def rules(self, session_pk: int) -> tuple[Rule, ...]:
        """The session's standing answers, always in the same order."""
        ...
