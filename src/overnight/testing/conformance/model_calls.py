"""The account of model calls: every one is kept, sums are exact, and it goes with its run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.domain.states import Input
from overnight.ports.model import ModelUsage
from overnight.ports.model_ledger import ModelCall, RecordedCall
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

USAGE = ModelUsage(input=1000, cached=200, cache_write=30, output=50, reasoning=10, cost_usd=0.1)
CALL = ModelCall(stream="a", model="test:one", ending="done", reason="stop", usage=USAGE)


async def add(stage: Stage, run_pk: int, *calls: ModelCall) -> None:
    """These calls, each a millisecond after the one before."""

    def unit(tx: Transaction) -> None:
        for at, call in enumerate(calls, 1):
            tx.model_calls.add(run_pk, call, at)

    await stage.uow.write(unit)


async def kept(stage: Stage, run_pk: int, after: int = 0, limit: int = 100) -> tuple[RecordedCall, ...]:
    """What is on the account."""
    return await stage.uow.read(lambda tx: tx.model_calls.page(run_pk, after=after, limit=limit))


@pytest.mark.anyio
class ModelCallSuite:
    """The contract of `ports.model_ledger.ModelCallTable`."""

    async def test_calls_are_kept_as_they_were_in_order(self, stage: Stage) -> None:
        run = await stage.run()
        calls = [
            CALL,
            ModelCall(stream="b", model="test:two", ending="error", reason="rate_limited"),
            ModelCall(stream="c", model="test:one", ending="lost", usage=replace(USAGE, cost_usd=None)),
            ModelCall(stream="d", model="test:one", ending="aborted", usage=replace(USAGE, cost_usd=0.0)),
        ]
        await add(stage, run.pk, *calls)
        found = await kept(stage, run.pk)
        assert [one.call for one in found] == calls
        assert [one.at for one in found] == [1, 2, 3, 4]
        assert [one.call for one in await kept(stage, run.pk, found[0].pk, 2)] == calls[1:3]

    async def test_sums_are_exact_and_of_one_run(self, stage: Stage) -> None:
        run, other = await stage.run(), await stage.run()
        await add(stage, run.pk, *([CALL] * 30), replace(CALL, usage=replace(USAGE, cost_usd=None)))
        await add(stage, other.pk, CALL)
        calls, used = await stage.uow.read(lambda tx: tx.model_calls.total(run.pk))
        assert (calls, used.input, used.cached, used.cache_write) == (31, 31_000, 6_200, 930)
        assert (used.output, used.reasoning, used.cost_usd) == (1_550, 310, 3.0)

    async def test_nothing_asked_is_nothing_used(self, stage: Stage) -> None:
        run = await stage.run()
        assert await stage.uow.read(lambda tx: tx.model_calls.total(run.pk)) == (0, ModelUsage())
        await add(stage, run.pk, replace(CALL, usage=ModelUsage()))
        assert (await stage.uow.read(lambda tx: tx.model_calls.total(run.pk)))[1].cost_usd is None

    async def test_the_account_goes_with_its_run(self, stage: Stage) -> None:
        run, lease, _ = await stage.held()
        await add(stage, run.pk, CALL)

        def end(tx: Transaction) -> None:
            now = stage.clock.wall_ms()
            tx.runs.save(tx.leases.check(lease).moved(Input.FAIL, now, ended_at=now))
            tx.leases.drop(run.pk)

        await stage.uow.write(end)
        await stage.uow.write(lambda tx: tx.runs.delete(run.pk))
        assert await kept(stage, run.pk) == ()
