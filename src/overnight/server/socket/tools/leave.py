"""Whether an agent's own process may have a tool called that people have to be asked about.

The agent asks before it calls, as for its local tools; here that is looked at once more, where the agent cannot get
around it: a tool that destroys, or wants permissions, is called for a run only as the run's policy and its standing
rules allow, or after a person has allowed exactly that call. An allowance is good for one call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from overnight.domain.action import Action, Resolved
from overnight.domain.approval import ALLOWING, Approval
from overnight.domain.rule import Rule, judge
from overnight.engine.desk import confined
from overnight.errors import LeaveNeeded
from overnight.ids import RunId
from overnight.ports.approval_tables import ApprovalFilter
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.server.auth import Caller
from overnight.wire.socket.catalog.tools import ToolMeta

_MOST: Final = 200
"""Latest approvals of a run that are looked at."""
_REMEMBERED: Final = 10_000


class Leaves:
    """`rules` are the operator's, for all runs."""

    def __init__(self, uow: UnitOfWork, rules: Sequence[Rule] = ()) -> None:
        self._uow = uow
        self._rules = tuple(rules)
        self._used: OrderedDict[str, None] = OrderedDict()

    async def check(self, caller: Caller, meta: ToolMeta, arguments: Mapping[str, Any]) -> None:
        """Return if the call may be made. Raises LeaveNeeded."""
        run_id = caller.run_id
        if run_id is None or not (meta.destructive or meta.permissions):
            return
        action = Action(kind="other", tool=meta.name, title=meta.name, arguments=dict(arguments))
        found = await self._uow.read(lambda tx: self._looked_up(tx, run_id, Resolved(action=action)))
        if found is None:
            return
        for approval in found:
            if approval.id not in self._used:
                self._used[approval.id] = None
                if len(self._used) > _REMEMBERED:
                    self._used.popitem(last=False)
                return
        raise LeaveNeeded(
            f"{meta.name} is only called with a person's leave, and this call has none",
            mend="ask for it, and call again with exactly the same arguments",
        )

    def _looked_up(self, tx: Transaction, run_id: RunId, resolved: Resolved) -> tuple[Approval, ...] | None:
        """The allowances for exactly this, oldest first; None when none is needed. Raises LeaveNeeded."""
        run = tx.runs.get(run_id, None)
        judgement = judge(
            resolved, policy=run.spec.approval_policy, workspace=run.workspace or "", confined=confined(run),
            rules=(*self._rules, *tx.approvals.rules(run.session_pk)),
        )  # fmt: skip
        if judgement.effect == "allow":
            return None
        if judgement.effect == "reject":
            raise LeaveNeeded(f"a rule rejects every call of {resolved.action.tool}")
        page = tx.approvals.page(ApprovalFilter(run_id=run_id, states=("resolved",)), limit=_MOST)
        return tuple(one for one in reversed(page) if _allows(one, resolved.action))


def _allows(approval: Approval, action: Action) -> bool:
    decided, asked = approval.decision, approval.action
    if decided is None or asked is None or decided.option not in ALLOWING:
        return False
    return asked.tool == action.tool and dict(asked.arguments) == dict(action.arguments)
