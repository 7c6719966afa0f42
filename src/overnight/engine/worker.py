"""The worker: claims due runs, keeps their leases alive from outside, and has an executor carry out each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import structlog

from overnight.domain.lease import Lease
from overnight.domain.run import Run
from overnight.domain.states import HELD
from overnight.domain.values import Failure
from overnight.engine.executor import Executor, Outcome
from overnight.engine.hold import Hold
from overnight.engine.policy import Timing
from overnight.engine.waiting import end, within
from overnight.engine.workshop import Workshop
from overnight.errors import LeaseLost, NotFound, OvernightError
from overnight.ports.notifier import QUEUE, Notice
from overnight.ports.run_source import RunSource

STORAGE_TROUBLE: Final = frozenset({"disk_full", "outcome_unknown", "unavailable"})
"""Codes of trouble that passes by itself: the run is taken up again for as long as it lasts."""
MOST_FAULTS: Final = 5
"""How often in a row an executor may break for another reason before its run is failed."""
ROW_S: Final = 60.0
"""Faults that are farther apart are not in a row."""
LONGEST_REST_S: Final = 2.0
"""Between two tries to take a run up again."""

log = structlog.get_logger(__name__)


class Worker:
    """Leases runs from `source` and carries them out, `slots` at a time (adopted ones come on top)."""

    def __init__(
        self, shop: Workshop, source: RunSource, *, timing: Callable[[], Timing] | None = None
    ) -> None:
        self._shop = shop
        self._timing = timing or (lambda: shop.timing)
        self._pace_s = self._timing().renew_s
        self._hurry = asyncio.Event()
        """Leases have become shorter: the next renewal is due sooner."""
        self._source = source
        self._holds: dict[int, Hold] = {}
        """The present hold of each run. The former one of a run that was let go may still be cleared away."""
        self._tasks: dict[Hold, asyncio.Task[None]] = {}
        self._faults: dict[int, tuple[int, float]] = {}
        self._draining = False
        self._unheard = False
        """The last renewal could not be stored: for leases that run out then, this worker is not to blame."""
        self._duties: list[asyncio.Task[None]] = []
        self._telling: set[asyncio.Future[None]] = set()
        """Renewals that keepers have not answered yet."""
        self._due: list[int] = []
        """Wall times at which runs that were given back come due again."""

    @property
    def busy(self) -> int:
        """How many runs are held, or just being let go."""
        return len(self._tasks)

    @property
    def lease_age_s(self) -> float:
        """How long ago the lease that has waited longest was renewed; 0 without any."""
        boot, lease_s = self._shop.clock.boot(), self._timing().lease_s
        ages = [boot - (hold.lease.trusted_until - lease_s) for hold in self._holds.values() if not hold.over]
        return max(ages, default=0.0)

    def holds(self, run_pk: int) -> bool:
        """Whether this process carries out that run."""
        return run_pk in self._holds

    def start(self, *, claiming: bool = True) -> None:
        """Begin to renew, and to claim unless this worker only finishes what it has adopted."""
        self._duties.append(asyncio.create_task(self._renew_forever(), name="renew"))
        if claiming:
            self._duties.append(asyncio.create_task(self._claim_forever(), name="claim"))

    def drain(self) -> None:
        """Claim nothing any more."""
        self._draining = True
        self._wake()

    async def adopt(self, run: Run, reason: str) -> bool:
        """Take over a held run that its holder has lost, under a new token; False when somebody else was faster."""
        asked = self._asked()
        try:
            taken = await self._source.take(run)
        except LeaseLost:
            return False
        self._begin(taken, asked, adopting=reason)
        return True

    async def shutdown(self, seconds: float) -> None:
        """End every turn in order and hand the runs back; whoever is not done after `seconds` is left as it is."""
        self.drain()
        for hold in self._holds.values():
            hold.ask("shutdown")
        if self._tasks:
            await within(self._shop.clock, seconds, self._all_ended())
        await self._stop()

    async def handover(self) -> None:
        """Let go of every run at once and leave its agent to the next server of this host."""
        self.drain()
        with suppress(OvernightError):  # what the next server has to start in counts from here
            await self.renew()
        leases = [hold.lease for hold in self._holds.values() if not hold.over]
        await self._stop()
        with suppress(OvernightError):  # the agents are left all the same
            await self._source.hand_over(leases)

    async def _all_ended(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    async def _stop(self) -> None:
        await end(*self._tasks.values(), *self._duties, *self._telling)

    # claiming

    async def _claim_forever(self) -> None:
        subscription = self._shop.notifier.subscribe(QUEUE)
        try:
            while not self._draining:
                try:
                    await self._claim()
                except OvernightError as error:
                    log.warning("worker.claim_failed", code=error.code, error=str(error))
                except Exception:  # whatever one claim meets, the next one must still be made
                    log.exception("worker.claim_broken")
                await subscription.next(self._patience())
        finally:
            subscription.close()

    async def _claim(self) -> None:
        """As long as there is room, and may be more to take: a run may have ended while this one was waited for."""
        while (free := self._free) > 0 and not self._draining:
            asked = self._asked()
            runs = await self._source.claim(free)
            for run in runs:
                self._begin(run, asked, adopting=None)
            if len(runs) < free:
                return

    @property
    def _free(self) -> int:
        """How many more runs could be carried out; less than none when adopted ones came on top."""
        return self._shop.worker.slots - sum(not hold.blocked for hold in self._tasks)

    def _patience(self) -> float:
        """How long to wait without being woken: the slow poll, or until a run that we gave back is due."""
        now = self._shop.clock.wall_ms()
        self._due = [at for at in self._due if at > now]
        return min([self._shop.timing.poll_s, *((at - now) / 1000 for at in self._due)])

    def _wake(self) -> None:
        self._shop.notifier.publish([Notice(topic=QUEUE)])

    # carrying out

    def _asked(self) -> tuple[float, float]:
        """When a lease is asked for now, and until when it is trusted: by the length that counts before the answer."""
        boot = self._shop.clock.boot()
        return boot, boot + self._timing().lease_s

    def _begin(self, run: Run, asked: tuple[float, float], *, adopting: str | None) -> None:
        if self._timing().renew_s < self._pace_s:
            self._hurry.set()
        sent_at, until = asked
        hold = Hold(run, Lease(run_pk=run.pk, token=run.token, trusted_until=until), sent_at)
        executor = Executor(self._shop, hold, adopting=adopting)
        if self._draining:
            hold.ask("shutdown")  # it was claimed while everybody else was being asked
        self._holds[run.pk] = hold
        self._tasks[hold] = asyncio.create_task(self._carry_out(executor, hold), name=f"run {run.id}")

    async def _carry_out(self, executor: Executor, hold: Hold) -> None:
        with structlog.contextvars.bound_contextvars(run=hold.run_id, token=hold.lease.token):
            try:
                outcome = await executor.run()
            finally:
                del self._tasks[hold]
                if self._holds.get(hold.run_pk) is hold:
                    del self._holds[hold.run_pk]
            await self._after(outcome, hold)

    async def _after(self, outcome: Outcome, hold: Hold) -> None:
        if outcome.due_at is not None:
            self._due.append(outcome.due_at)
        if outcome.trouble is None:
            self._faults.pop(hold.run_pk, None)
            if self._free <= 1 or outcome.due_at is not None:
                self._wake()  # there was no room before, so others may wait; or there is less time to sleep
            return
        if not self._draining:
            task = asyncio.create_task(self._retake(hold, outcome.trouble), name=f"retake {hold.run_id}")
            self._duties.append(task)
            task.add_done_callback(self._duties.remove)

    async def _retake(self, hold: Hold, trouble: Exception) -> None:
        """The executor let go without an end: if the run is still ours, take it again under a new token."""
        for faults in count(self._count_fault(hold.run_pk)):
            if faults > 1:
                await self._shop.clock.sleep(min(LONGEST_REST_S, 0.1 * 2 ** min(faults, 10)))
            try:
                await self._take_again(hold, trouble, faults)
            except NotFound:
                self._faults.pop(hold.run_pk, None)  # somebody else has ended it, and it was removed
            except OvernightError as error:
                log.warning("run.retake_failed", run=hold.run_id, code=error.code, error=str(error))
                continue
            except Exception:  # as long as it is ours by the log, nobody else carries it out
                log.exception("run.retake_broken", run=hold.run_id)
                continue
            return

    async def _take_again(self, hold: Hold, trouble: Exception, faults: int) -> None:
        run = await self._source.look(hold.run_id)
        if run.state not in HELD or run.token != hold.lease.token:
            self._faults.pop(hold.run_pk, None)
        elif _lasting(trouble) and faults >= MOST_FAULTS:
            await self._fail(run, trouble)
        else:
            await self.adopt(run, _reason(trouble))

    def _count_fault(self, run_pk: int) -> int:
        """How often in a row: an executor that worked for a while since the last time begins a new row."""
        boot = self._shop.clock.boot()
        count, since = self._faults.get(run_pk, (0, boot))
        count = count + 1 if boot - since < ROW_S else 1
        self._faults[run_pk] = count, boot
        return count

    async def _fail(self, run: Run, trouble: Exception) -> None:
        failure = Failure(
            code="internal", message=f"Overnight could not carry out the run: {type(trouble).__name__}"
        )
        self._faults.pop(run.pk, None)
        await self._source.fail(run, failure)

    # leases

    async def _renew_forever(self) -> None:
        while True:
            self._pace_s = self._timing().renew_s
            self._hurry.clear()
            await within(self._shop.clock, self._pace_s, self._hurry.wait())
            try:
                await self.renew()
            except OvernightError as error:
                log.warning("worker.renewal_failed", code=error.code, error=str(error))
            except Exception:  # without this loop every lease would run out
                log.exception("worker.renewal_broken")

    async def renew(self) -> None:
        """Renew all leases that have not run out in one statement that goes before everything else.

        A lease that has run out meanwhile (the machine slept, the process was stopped) is not revived: its executor
        finds it lost, lets go, and the run is taken again under a new token.
        """
        sent_at = self._shop.clock.boot()
        holds = {pk: hold for pk, hold in self._holds.items() if not hold.over}
        live = {pk: hold for pk, hold in holds.items() if sent_at < hold.lease.trusted_until}
        stood_still = "the lease ran out while this process stood still"
        dropped = [_drop(holds[pk], stood_still) for pk in holds.keys() - live.keys()]
        if live:
            try:
                dropped += await self._renew(live, sent_at)
            except OvernightError:
                self._unheard = True
                raise
        if any(dropped) and not self._unheard:
            await self._shop.conduct.stumbled("its leases were lost")
        self._unheard = False

    async def _renew(self, live: Mapping[int, Hold], sent_at: float) -> list[bool]:
        """For each that could not be renewed whether that is news."""
        lease_s = self._timing().lease_s
        lost = await self._source.renew({pk: hold.lease.token for pk, hold in live.items()})
        kept = [hold for pk, hold in live.items() if pk not in lost]
        for hold in kept:
            hold.renewed(sent_at, lease_s)
        dropped = [_drop(live[pk], "another holder has taken it") for pk in lost]
        await self._tell(kept, sent_at, lease_s)
        return dropped

    async def _tell(self, holds: Sequence[Hold], sent_at: float, lease_s: float) -> None:
        """Pass the renewal on. A keeper that stands still may not hold up the next one of all the others."""
        told = [asyncio.ensure_future(hold.tell_keeper(sent_at, lease_s)) for hold in holds]
        self._telling.update(told)
        for task in told:
            task.add_done_callback(self._telling.discard)
        if told:
            done, _ = await asyncio.wait(told, timeout=self._pace_s / 4)
            for task in done:
                task.result()


def _drop(hold: Hold, why: str) -> bool:
    """Whether a hold that was still needed is lost now."""
    if hold.over or not hold.lose(why):
        return False
    log.warning("run.lease_lost", run=hold.run_id, token=hold.lease.token, reason=why)
    return True


def _lasting(trouble: Exception) -> bool:
    """Whether waiting will not help."""
    if isinstance(trouble, LeaseLost):
        return False
    return not (isinstance(trouble, OvernightError) and trouble.code in STORAGE_TROUBLE)


def _reason(trouble: Exception) -> str:
    if isinstance(trouble, LeaseLost):
        return "lease_expired"
    return trouble.code if isinstance(trouble, OvernightError) else "executor_failed"
