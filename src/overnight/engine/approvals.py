"""What people ask of approvals: look at them, and decide. A decision is checked against what would happen now.

`questions` opens and settles approvals inside a transaction, `desk` is what an agent's turn asks and is told,
`tool_question` what a person is shown, and `maintenance.expirer` decides what nobody has decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from overnight.clock import Clock
from overnight.domain.action import CHANGING, Resolved
from overnight.domain.approval import Approval, Decision, Option
from overnight.domain.event import Draft
from overnight.domain.limits import spent
from overnight.domain.redaction import Redactor
from overnight.domain.request import Principal
from overnight.domain.run import Run
from overnight.domain.spec import LimitsSpec
from overnight.engine import moves, questions
from overnight.engine.control import raised
from overnight.engine.desk import confined
from overnight.engine.policy import RunPolicy
from overnight.engine.tool_question import context_of, leave
from overnight.errors import (
    ActionChanged,
    AlreadyDecided,
    ApprovalOver,
    Forbidden,
    InvalidInput,
    UnknownOption,
)
from overnight.ids import ApprovalId, HostId
from overnight.ports.approval_tables import ApprovalFilter
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.ports.workspace import Workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """What somebody decides. `digest` is that of the action which they have seen."""

    option: str
    digest: str
    feedback: str | None = None
    changes: Mapping[str, object] | None = None
    """For `raise`: `{limits: {…}}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    approval: Approval
    changed: bool = False
    """The action is no longer what was shown: nothing was decided."""


class ApprovalService:
    """Commands on approvals. Each answer is durable before it is given."""

    def __init__(
        self, *, uow: UnitOfWork, clock: Clock, workspaces: Workspaces, policy: RunPolicy, host_id: HostId
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._workspaces = workspaces
        self._policy = policy
        self._host_id = host_id

    async def list(
        self, filter: ApprovalFilter, *, limit: int, after: tuple[int, int] | None = None
    ) -> tuple[Approval, ...]:
        """Newest first by (created_at, pk)."""
        return await self._uow.read(lambda tx: tx.approvals.page(filter, limit=limit, after=after))

    async def get(self, approval_id: ApprovalId, owner: str | None) -> Approval:
        """By id. Raises NotFound."""
        return await self._uow.read(lambda tx: tx.approvals.get(approval_id, owner))

    async def resolve(self, approval_id: ApprovalId, asked: Resolve, by: Principal) -> Approval:
        """Decide. The same decision again gives the same approval.

        Raises NotFound, Forbidden (agents and workers never decide), UnknownOption, AlreadyDecided (with the decision
        that counts), ApprovalOver, ActionChanged (with the new digest: the approval shows what would happen now, and
        stays open), InvalidTransition while the run is being cancelled.
        """
        if by.kind not in {"user", "system"}:
            raise Forbidden("only a person's token can decide", mend="use the token of a user")
        approval, run = await self._uow.read(lambda tx: _with_run(tx, approval_id, by.owner))
        fresh = await asyncio.to_thread(self._resolved, approval, run)
        outcome = await self._uow.write(lambda tx: self._decide(tx, approval_id, asked, by, fresh))
        if outcome.changed:
            raise ActionChanged(
                f"{approval_id}: what would happen is not what was shown any more; nothing was decided",
                mend="look at it again and decide with its new digest",
                extra={"digest": outcome.approval.digest},
            )
        return outcome.approval

    def _resolved(self, approval: Approval, run: Run) -> Resolved | None:
        """The action as it is now; None where it names no place that could be looked at here. Blocks on the disk."""
        action = approval.action
        if action is None or run.workspace is None or run.host_id != self._host_id:
            return None
        places = self._workspaces.places(
            Path(run.workspace), action.whereabouts, hashed=action.kind in CHANGING
        )
        return Resolved(action=action, places=places)

    def _decide(
        self, tx: Transaction, approval_id: ApprovalId, asked: Resolve, by: Principal, fresh: Resolved | None
    ) -> _Outcome:
        run = tx.runs.lock(tx.approvals.get(approval_id, by.owner).run_pk)
        approval = tx.approvals.get(approval_id, by.owner)
        decision = Decision(option=asked.option, feedback=asked.feedback, changes=asked.changes, by=by.name)
        if approval.state != "pending":
            return _Outcome(approval=_same_again(approval, decision))
        option = _option(approval, asked)
        if fresh is not None and fresh.digest != approval.digest:
            return _Outcome(approval=self._show_again(tx, run, approval, fresh), changed=True)
        if asked.digest != approval.digest:
            return _Outcome(approval=approval, changed=True)
        ruling = questions.Ruling(decision=decision, option=option, limits=self._limits(run, option, asked))
        return _Outcome(approval=questions.decide(tx, run, approval, ruling, by, self._clock.wall_ms()))

    def _limits(self, run: Run, option: Option, asked: Resolve) -> LimitsSpec | None:
        if option.kind != "raise":
            return None
        limits = raised(run, (asked.changes or {}).get("limits"), self._policy.max_limits)
        if limits is None or spent(limits, run.stats) is not None:
            raise InvalidInput(
                "the budget is still spent with these limits",
                mend='send changes such as {"limits": {"tokens": 2000000}}; null takes a limit away',
            )
        return limits

    def _show_again(self, tx: Transaction, run: Run, approval: Approval, fresh: Resolved) -> Approval:
        """The approval as it has to be seen before anybody can decide."""
        now = self._clock.wall_ms()
        redactor = self._redactor(tx, run)
        context = context_of(fresh, redactor, sandbox=run.sandbox_effective, binding=confined(run))
        if "item_id" in approval.context:
            context["item_id"] = approval.context["item_id"]
        own = any(option.kind == "answer" for option in approval.options)
        options = approval.options if own else tuple(leave(fresh, redactor))
        renewed = replace(approval, digest=fresh.digest, context=context, options=options)
        tx.approvals.save(renewed)
        data = {**questions.shown(renewed), "changed": True}
        moves.note(tx, run, now, Draft(type="approval.requested", data=data))
        return renewed

    def _redactor(self, tx: Transaction, run: Run) -> Redactor:
        return self._policy.redactor(tx.runs.secret_environment(run.pk).values())


def _with_run(tx: Transaction, approval_id: ApprovalId, owner: str) -> tuple[Approval, Run]:
    approval = tx.approvals.get(approval_id, owner)
    return approval, tx.runs.get(approval.run_id, owner)


def _same_again(approval: Approval, decision: Decision) -> Approval:
    if approval.decision is None:
        raise ApprovalOver(f"{approval.id} was cancelled: what it asked about will not happen")
    if approval.state == "expired":
        raise ApprovalOver(
            f"{approval.id} has expired, and {approval.decision.option} was applied",
            extra={"decision": approval.decision.to_json()},
        )
    if not approval.decision.same(decision):
        raise AlreadyDecided(
            f"{approval.id} was decided by {approval.decision.by}: {approval.decision.option}",
            extra={"decision": approval.decision.to_json()},
        )
    return approval


def _option(approval: Approval, asked: Resolve) -> Option:
    option = approval.option(asked.option)
    if option is None:
        known = ", ".join(option.id for option in approval.options)
        raise UnknownOption(f"{approval.id} has no option {asked.option[:80]!r}", mend=f"use one of: {known}")
    if asked.changes and option.kind != "raise":
        raise UnknownOption(f"the option {option.id} takes no changes", mend="leave `changes` out")
    return option
