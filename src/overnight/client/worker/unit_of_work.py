"""Units of work without a database: run here against what the server has told, and done again there as one batch.

A unit finds facts and writes. What it wrote is sent with the digest of those facts (`base`). If they are still true
the server applies all of it in one transaction; if not, it says what is true now and the unit runs again, as units
may. When an answer is lost the same batch is sent again, until somebody answers or the lease is over: so a unit takes
effect once or not at all, and whoever asked for it hears which, or that the hold is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar, cast

import structlog

from overnight.client.worker.holding import Holding
from overnight.client.worker.stage import Missing, Stage, Told, Unbound
from overnight.client.worker.transaction import RemoteTransaction
from overnight.clock import Clock
from overnight.domain.backend import BackendCheck
from overnight.domain.worker import Worker
from overnight.errors import (
    BatchOutOfOrder,
    DiskFull,
    LeaseLost,
    OutcomeUnknown,
    OvernightError,
    StaleFacts,
    Unavailable,
    Unreachable,
)
from overnight.ids import RunId
from overnight.ports.lease_desk import LeaseDesk
from overnight.ports.notifier import Notice, Notifier
from overnight.ports.remote import Batch, Facts, Granted
from overnight.ports.unit_of_work import Transaction, Unit

MOST_TRIES: Final = 100
"""How often a unit is run for one answer: each time the run has changed meanwhile, or it asks for one thing more."""
FIRST_REST_S: Final = 0.05
LONGEST_REST_S: Final = 1.0
MOST_ENDED: Final = 1000
"""Holds that are known to have ended in order: as many as can be asked about at once."""
ANSWER_S: Final = 1.0
"""How long a batch that may have ended a hold is waited for, while the other holds wait for their renewal."""
PASSING: Final = (Unreachable, Unavailable, OutcomeUnknown, DiskFull)
"""Trouble that passes by itself: the same call is made again."""
T = TypeVar("T")

log = structlog.get_logger(__name__)


class RemoteUnitOfWork:
    """See `ports.unit_of_work.UnitOfWork`. Every unit is about one run that this worker holds, or about no run."""

    def __init__(self, desk: LeaseDesk, clock: Clock, notifier: Notifier, worker: Worker) -> None:
        self._desk = desk
        self._clock = clock
        self._notifier = notifier
        self._worker = worker
        self._holdings: dict[int, Holding] = {}
        self._ended_by_us: dict[int, int] = {}
        """Tokens of the last holds that ended with our own batches."""
        self._writes: set[asyncio.Task[object]] = set()
        self._checks: dict[str, BackendCheck] = {}
        self.changed = asyncio.Event()
        """Set whenever another run is held, or one less."""

    # holds

    def hold(self, granted: Granted, until: float) -> None:
        """A run was leased, until that boot time at the least."""
        run = granted.facts.run
        if (former := self._holdings.get(run.pk)) is not None:
            former.lose("it was taken again under a new token")
        self._holdings[run.pk] = Holding(granted, until, self._clock)
        self.changed.set()

    def renewed(self, pk: int, until: float) -> None:
        """Its lease was renewed."""
        if (holding := self._holdings.get(pk)) is not None:
            holding.renewed(until)

    def lost(self, pk: int, token: int, why: str) -> None:
        """The run is no longer held under that token. Such news may be late: a newer hold of the run stays."""
        holding = self._holdings.get(pk)
        if holding is not None and holding.token == token:
            holding.lose(why)
            del self._holdings[pk]
            self.changed.set()

    async def heard_lost(self, pk: int, token: int, why: str) -> bool:
        """The server says that a run is not held under that token; whether the hold is lost thereby.

        It may only have ended, by the batch whose answer is still on its way: that is waited for, though not for long.
        """
        holding = self._holdings.get(pk)
        if holding is not None and holding.token == token:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S), holding.lock:
                    pass
        if self._ended_by_us.get(pk) == token:
            return False
        self.lost(pk, token, why)
        return True

    def tokens(self) -> dict[RunId, int]:
        """All that is held: {run id: token}."""
        return {holding.run.id: holding.token for holding in self._holdings.values()}

    def agent_key(self, run_id: str) -> str:
        """See `Granted.agent_key`, of a run that is held; empty for others."""
        return next((one.agent_key for one in self._holdings.values() if one.run.id == run_id), "")

    def run_of(self, pk: int) -> tuple[RunId, int] | None:
        """Id and token of a run that is held."""
        holding = self._holdings.get(pk)
        return None if holding is None else (holding.run.id, holding.token)

    def pk_of(self, run_id: RunId) -> int | None:
        """The key of a run that is held."""
        return next((pk for pk, one in self._holdings.items() if one.run.id == run_id), None)

    def checks(self) -> tuple[BackendCheck, ...]:
        """Preflights that the server has not been told of."""
        return tuple(self._checks.values())

    def told_checks(self, checks: tuple[BackendCheck, ...]) -> None:
        """These it knows now."""
        for check in checks:
            if self._checks.get(check.name) is check:
                del self._checks[check.name]

    async def close(self) -> None:
        """Give up whatever is still being sent."""
        writes = list(self._writes)
        for task in writes:
            task.cancel()
        await asyncio.gather(*writes, return_exceptions=True)

    # the port

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:  # noqa: ARG002 -- renewals go another way
        """See the port. Raises LeaseLost when the run is not held, or nobody can tell any more what was applied."""
        bound, result = self._bind(unit)
        if bound is None:
            return cast("T", result)
        # A batch that is on its way comes to its end even when nobody waits for it any more: the next one must know.
        task = asyncio.create_task(self._write(bound, unit), name=f"write {bound.run.id}")
        self._writes.add(cast("asyncio.Task[object]", task))
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    async def read(self, query: Unit[T]) -> T:
        """See the port: the facts are asked for anew."""
        bound, result = self._bind(query)
        if bound is None:
            return cast("T", result)
        told = await self._learn(bound, Told(facts=bound.facts, environment=bound.environment))
        why = ""
        for _ in range(MOST_TRIES):
            try:
                return query(self._transaction(Stage(told, self._checks)))
            except Missing as missing:
                why = str(missing)
                told = await self._learn(bound, told, missing)
        raise _tried_enough(bound, "read", why)

    def _written(self, task: asyncio.Task[T]) -> None:
        self._writes.discard(cast("asyncio.Task[object]", task))
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody does, it is nobody's

    def _bind(self, unit: Unit[T]) -> tuple[Holding | None, T | None]:
        """The hold that a unit is about; a unit that is about none has been run by then."""
        try:
            return None, unit(self._transaction(Stage(None, self._checks)))
        except Unbound as unbound:
            for pk, holding in self._holdings.items():
                if unbound.run in (pk, holding.run.id):
                    return holding, None
        raise LeaseLost("the run is not held by this worker")

    def _transaction(self, stage: Stage) -> Transaction:
        return cast("Transaction", RemoteTransaction(stage, self._clock))

    async def _write(self, holding: Holding, unit: Unit[T]) -> T:
        async with holding.lock:
            told, why = Told(facts=holding.facts, environment=holding.environment), ""
            for _ in range(MOST_TRIES):
                stage = Stage(told, self._checks)
                try:
                    result = unit(self._transaction(stage))
                except Missing as missing:
                    why = str(missing)
                    told = await self._learn(holding, told, missing)
                    continue
                except OvernightError as error:
                    # Perhaps only because what was told is no longer so.
                    why = f"{error.code}: {error}"
                    told, same = await self._look_again(holding, told)
                    if same:
                        raise
                    continue
                if not stage.ops:
                    told, same = await self._look_again(holding, told)
                    if same:
                        return result
                    continue
                stale = await self._send(holding, told, stage)
                if stale is None:
                    self._notifier.publish([Notice(topic=topic) for topic in stage.topics])
                    return result
                told, why = stale, "the run has changed meanwhile"
        raise _tried_enough(holding, "written", why)

    async def _look_again(self, holding: Holding, told: Told) -> tuple[Told, bool]:
        """What is true now, and whether that is what was told."""
        now = await self._learn(holding, told)
        return now, now.facts.base == told.facts.base

    async def _learn(self, holding: Holding, told: Told, missing: Missing | None = None) -> Told:
        """The facts of now, with all answers that were needed so far and one more."""
        asks = tuple(dict.fromkeys([*told.answers, *([missing.ask] if missing else [])]))
        facts, answers = await self._patiently(
            holding, lambda: self._desk.facts(self._worker, holding.run, asks)
        )
        facts = _with_spec(facts, holding)
        holding.told(facts)
        return replace(told, facts=facts, answers=answers)

    async def _send(self, holding: Holding, told: Told, stage: Stage) -> Told | None:
        """None once the batch is applied; else what is true instead."""
        batch = Batch(
            token=holding.token,
            n=holding.batches + 1,
            base=told.facts.base,
            ops=tuple(stage.ops),
            wake=stage.wake,
        )
        try:
            facts = await self._patiently(holding, lambda: self._desk.send(self._worker, holding.run, batch))
        except StaleFacts as stale:
            now = _with_spec(cast("Facts", stale.facts), holding)
            holding.told(now)
            free = told.place_free if stale.place_free is None else stale.place_free
            return replace(told, facts=now, answers={}, place_free=free)
        holding.batches = batch.n
        if facts is None:
            self._ended(holding)
        else:
            holding.told(_with_spec(facts, holding))
        return None

    def _ended(self, holding: Holding) -> None:
        holding.lose("the run was let go")
        self._ended_by_us[holding.run.pk] = holding.token
        if len(self._ended_by_us) > MOST_ENDED:
            del self._ended_by_us[next(iter(self._ended_by_us))]
        if self._holdings.get(holding.run.pk) is holding:
            del self._holdings[holding.run.pk]
            self.changed.set()

    async def _patiently(self, holding: Holding, call: Callable[[], Awaitable[T]]) -> T:
        """The answer, asking again while the trouble is a passing one and the lease lasts. Raises LeaseLost then."""
        rest = FIRST_REST_S
        while True:
            holding.check()
            try:
                return await call()
            except PASSING as error:
                log.warning("server.not_reached", run=holding.run.id, code=error.code, error=str(error))
            except (LeaseLost, BatchOutOfOrder) as error:
                holding.lose(str(error))
                raise LeaseLost(str(error)) from None
            await self._clock.sleep(rest)
            rest = min(LONGEST_REST_S, rest * 2)


def _tried_enough(holding: Holding, done: str, why: str) -> Unavailable:
    """A unit that never came through: either the run is very busy, or the unit and the server do not agree."""
    log.error("unit.given_up", run=holding.run.id, token=holding.token, tries=MOST_TRIES, reason=why)
    return Unavailable(f"the run could not be {done} in {MOST_TRIES} tries; the last time: {why}")


def _with_spec(facts: Facts, holding: Holding) -> Facts:
    """The facts as they came, with the spec, of which there is one for the life of a run."""
    return replace(facts, run=replace(facts.run, spec=holding.run.spec))
