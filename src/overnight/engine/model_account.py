"""The account of what runs have asked of language models, and whether they may ask more."""

from __future__ import annotations

from dataclasses import replace

from overnight.clock import Clock
from overnight.domain.limits import Spending, spending
from overnight.domain.run import Run
from overnight.domain.values import Usage
from overnight.errors import BudgetSpent
from overnight.ids import RunId
from overnight.ports.model import ModelUsage
from overnight.ports.model_ledger import ModelCall
from overnight.ports.unit_of_work import Transaction, UnitOfWork


class ModelAccount:
    """`ports.model_ledger.ModelLedger` in the database."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    async def allow(self, run_id: RunId) -> None:
        """See the port."""

        def look(tx: Transaction) -> tuple[Run, ModelUsage]:
            run = tx.runs.get(run_id, None)
            return run, tx.model_calls.total(run.pk)[1]

        found = spent(*await self._uow.read(look))
        if found is not None:
            raise BudgetSpent(
                f"{found} are used up", mend="raise the run's limits", extra=dict(found.to_json())
            )

    async def record(self, run_id: RunId, call: ModelCall) -> None:
        """See the port."""
        at = self._clock.wall_ms()

        def write(tx: Transaction) -> None:
            tx.model_calls.add(tx.runs.get(run_id, None).pk, call, at)

        await self._uow.write(write)


def spent(run: Run, asked: ModelUsage) -> Spending | None:
    """The budget that is spent, be it by what turns have reported or by what was asked of models here.

    Both tell of the same answers where the run's agent is the built-in one, so the larger counts and not their sum.
    Working time is not looked at: its clock stands while somebody is waited for.
    """
    told = run.stats.usage
    costs = [cost for cost in (told.cost_usd, asked.cost_usd) if cost is not None]
    tokens = max(told.total, asked.total)
    usage = Usage(input=tokens, cost_usd=max(costs, default=None))
    budgets = spending(run.limits, replace(run.stats, usage=usage))
    found = [entry for entry in budgets if entry.budget != "wall_clock_s" and entry.part >= 1]
    return max(found, key=lambda entry: entry.part, default=None)
