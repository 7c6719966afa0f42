"""Leases for workers that have no database: what the lease routes do, each in one transaction.

Nothing is kept in memory that another server would miss: any of them may answer the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.backend import BackendCheck
from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.run import Run
from overnight.domain.spec import RunSpec
from overnight.domain.values import Failure
from overnight.domain.worker import Worker
from overnight.engine import moves
from overnight.engine.conduct import RELEASE
from overnight.engine.local_source import OfferOf, broken, claimed
from overnight.engine.policy import RunPolicy, Timing
from overnight.engine.remote import live
from overnight.engine.remote.apply import Application, PlaceDiffers
from overnight.engine.remote.facts import answers_of, environment_of, facts_of, granted
from overnight.engine.remote.seats import (
    Caller,
    beat,
    check_newcomer,
    check_order,
    found,
    held,
    known,
    last_type,
    newest,
    of_host,
    seat_of,
)
from overnight.errors import LeaseLost, StaleFacts
from overnight.ids import RunId
from overnight.ports.notifier import QUEUE, Notifier, Subscription, requests_topic
from overnight.ports.remote import (
    NOTHING_NEW,
    Answers,
    Ask,
    Batch,
    Facts,
    Fragment,
    Grant,
    Granted,
    News,
    Renewal,
    Report,
    Seat,
)
from overnight.ports.unit_of_work import Transaction, UnitOfWork

LONGEST_WAIT_S: Final = 30.0
CLAIMING: Final = "active"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the service is made of."""

    uow: UnitOfWork
    notifier: Notifier
    clock: Clock
    policy: RunPolicy
    timing: Timing
    offer: OfferOf
    quarantine_after: int = 0
    """Failures in a row that put a worker into quarantine; 0: never."""


class LeaseService:
    """See `ports.lease_desk.LeaseDesk` for what each call promises."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._uow = kept.uow
        self._clock = kept.clock
        self._waiting: set[Subscription] = set()
        self._closed = False

    def close(self) -> None:
        """Let nobody wait any more: whoever does is answered now, and asks the next server."""
        self._closed = True
        for subscription in tuple(self._waiting):
            subscription.close()

    @contextmanager
    def _subscribed(self, *topics: str) -> Iterator[Subscription]:
        subscription = self._kept.notifier.subscribe(*topics)
        self._waiting.add(subscription)
        try:
            yield subscription
        finally:
            self._waiting.discard(subscription)
            subscription.close()

    async def grant(
        self, caller: Caller, worker: Worker, free: int, request_id: str, checks: Sequence[BackendCheck],
        wait_s: float = 0.0, report: Report = NOTHING_NEW, lease_s: float = 0.0,
    ) -> Grant:  # fmt: skip
        """Lease up to `free` runs, waiting for the first at most `wait_s`. A worker that may have none waits too."""
        until = self._clock.boot() + min(wait_s, LONGEST_WAIT_S)

        def unit(tx: Transaction) -> Grant:
            return self._grant(tx, caller, worker, free, request_id, checks, report, lease_s)

        with self._subscribed(QUEUE) as subscription:
            while True:
                grant = await self._uow.write(unit)
                left = until - self._clock.boot()
                if grant.runs or free <= 0 or left <= 0 or self._closed:
                    break
                await subscription.next(min(left, self._kept.timing.poll_s))
        if report.faults and grant.state == "quarantined":
            log.error("worker.quarantined", worker=worker.id, why=report.faults[-1], mend=RELEASE)
        return grant

    def _grant(
        self, tx: Transaction, caller: Caller, worker: Worker, free: int, request_id: str,
        checks: Sequence[BackendCheck], report: Report, lease_s: float,
    ) -> Grant:  # fmt: skip
        now = self._clock.wall_ms()
        seat = self._sit(tx, caller, worker, now)
        for check in (one for one in checks if one.name in seat.worker.backends):
            tx.workers.save_check(seat.worker.host_id, check)
        if seat.request_id == request_id and seat.granted:
            again = [self._still(tx, seat, pk, token) for pk, token in seat.granted.items()]
            tokens = {run.pk: run.token for run in again if run is not None}
            tx.leases.renew(seat.worker.pk, tokens, lease_s)
            return self._granted(tx, seat, [run for run in again if run is not None], now)
        if report != NOTHING_NEW and seat.request_id != request_id:
            self._judge(tx, seat, report, now)
            tx.remote.grant(seat.worker.pk, request_id, {})  # it counts once, however often it is told
            seat = seat_of(tx, caller)
        runs: tuple[Run, ...] = ()
        if free > 0 and seat.worker.state == CLAIMING:
            offer = self._kept.offer(seat.worker, free)
            offer = replace(offer, lease_s=max(offer.lease_s, lease_s))
            runs = claimed(tx, offer, seat.worker, now)
        if runs:
            tx.remote.grant(seat.worker.pk, request_id, {run.pk: run.token for run in runs})
        return self._granted(tx, seat, runs, now)

    def _sit(self, tx: Transaction, caller: Caller, worker: Worker, now: int) -> Seat:
        """The worker's seat, once it is known that it lives."""
        check_newcomer(tx, worker, caller)
        seat = tx.remote.sit(
            replace(worker, id=caller.worker_id, seen_at=now), caller.token_pk,
            quarantine_after=self._kept.quarantine_after,
        )  # fmt: skip
        beat(tx, seat, now)
        return seat_of(tx, caller) if seat.worker.state == "gone" else seat

    def _judge(self, tx: Transaction, seat: Seat, report: Report, now: int) -> None:
        """What a worker that has a database counts there itself, see `engine.conduct`."""
        if report.well:
            tx.workers.went_well(seat.worker.pk)
        for why in report.faults:
            tx.workers.fault(seat.worker.pk, why, now, quarantine_after=self._kept.quarantine_after)

    def _still(self, tx: Transaction, seat: Seat, pk: int, token: int) -> Run | None:
        """A run of the grant that is asked for again, unless it has been lost meanwhile."""
        holder = tx.remote.holder(pk)
        if holder is None or (holder.worker_pk, holder.token) != (seat.worker.pk, token):
            return None
        return tx.runs.lock(pk)

    def _granted(self, tx: Transaction, seat: Seat, runs: Sequence[Run], now: int) -> Grant:
        return Grant(
            runs=tuple(self._one(tx, run, now) for run in runs), state=seat.worker.state,
            lease_s=self._kept.timing.lease_s, now=now,
        )  # fmt: skip

    def _one(self, tx: Transaction, run: Run, now: int) -> Granted:
        return granted(tx, tx.runs.lock(run.pk), self._kept.policy.secrets, now)

    async def take(self, caller: Caller, run_id: RunId, token: int, lease_s: float = 0.0) -> Granted:
        """Take over a run that the same host has held under `token`."""

        def unit(tx: Transaction) -> Granted:
            seat, run = seat_of(tx, caller), known(tx, run_id)
            holder = of_host(tx, caller, seat.worker.host_id, run)
            last = tx.remote.last_batch(run.pk)
            unheard = (holder.worker_pk, holder.token) == (seat.worker.pk, token + 1)
            if unheard and (last is None or last.token != holder.token):
                # It was taken before, and the answer was lost: under that token nothing has been done yet.
                tx.leases.renew(seat.worker.pk, {run.pk: holder.token}, lease_s)
                return self._one(tx, run, self._clock.wall_ms())
            length_s = max(self._kept.timing.lease_s, lease_s)
            taken = tx.leases.take(run.pk, seat.worker.pk, token, lease_s=length_s)
            return self._one(tx, taken, self._clock.wall_ms())

        return await self._uow.write(unit)

    async def look(self, caller: Caller, run_id: RunId) -> Run:
        """A run that a worker of the caller's host holds, even if its lease has run out."""

        def query(tx: Transaction) -> Run:
            seat, run = seat_of(tx, caller), known(tx, run_id)
            of_host(tx, caller, seat.worker.host_id, run)
            return run

        return await self._uow.read(query)

    async def succeed(self, caller: Caller, worker: Worker) -> tuple[Run, ...]:
        """Register the worker as the only one of its host; what earlier ones hold still."""

        def unit(tx: Transaction) -> tuple[Run, ...]:
            now = self._clock.wall_ms()
            seat = self._sit(tx, caller, worker, now)
            others = tx.remote.seats(seat.worker.host_id, caller.token_pk)
            for other in others:
                if other.worker.id != seat.worker.id and other.worker.state != "gone":
                    tx.workers.set_state(other.worker.id, "gone", now)
            mine = {other.worker.pk for other in others}
            held_here = tx.leases.held(seat.worker.host_id)
            return tuple(found.run for found in held_here if found.worker_pk in mine)

        return await self._uow.write(unit)

    async def renew(self, caller: Caller, tokens: Mapping[RunId, int], lease_s: float = 0.0) -> Renewal:
        """Renew all of these at once, before everything else."""
        own_s = self._kept.timing.lease_s
        pks = await self._pks(tokens)

        def unit(tx: Transaction) -> Renewal:
            seat = seat_of(tx, caller)
            beat(tx, seat, self._clock.wall_ms())
            there = {pks[run_id]: token for run_id, token in tokens.items() if run_id in pks}
            lost = tx.leases.renew(seat.worker.pk, there, max(own_s, lease_s)) if there else frozenset()
            gone = tuple(run_id for run_id in tokens if run_id not in pks or pks[run_id] in lost)
            kept = {run_id: newest(tx, pks[run_id]) for run_id in tokens if run_id not in gone}
            return Renewal(lost=gone, requests=kept, state=seat.worker.state, lease_s=own_s)

        return await self._uow.write(unit, urgent=True)

    async def _pks(self, run_ids: Mapping[RunId, int]) -> dict[RunId, int]:
        def query(tx: Transaction) -> dict[RunId, int]:
            return {run_id: run.pk for run_id in run_ids if (run := found(tx, run_id)) is not None}

        return await self._uow.read(query)

    async def watch(
        self, caller: Caller, tokens: Mapping[RunId, int], seen: Mapping[RunId, int], *, wait_s: float,
        work: bool,
    ) -> News:  # fmt: skip
        """Until one of the runs has a newer request than `seen` or is lost, or (`work`) the queue has moved."""
        pks = await self._pks(tokens)
        topics = [requests_topic(pk) for pk in pks.values()]
        until = self._clock.boot() + min(wait_s, LONGEST_WAIT_S)
        with self._subscribed(*topics, *([QUEUE] if work else ())) as subscription:
            while True:
                news = await self._uow.read(lambda tx: self._news(tx, caller, tokens, seen, pks))
                left = until - self._clock.boot()
                if news.requests or news.lost or left <= 0 or self._closed:
                    return news
                notices = await subscription.next(min(left, self._kept.timing.poll_s))
                if any(notice.topic == QUEUE for notice in notices):
                    return replace(news, work=True)

    def _news(
        self, tx: Transaction, caller: Caller, tokens: Mapping[RunId, int], seen: Mapping[RunId, int],
        pks: Mapping[RunId, int],
    ) -> News:  # fmt: skip
        seat = seat_of(tx, caller)
        lost = []
        newer = {}
        for run_id, token in tokens.items():
            holder = tx.remote.holder(pks[run_id]) if run_id in pks else None
            if holder is None or (holder.worker_pk, holder.token) != (seat.worker.pk, token):
                lost.append(run_id)
            elif (number := newest(tx, pks[run_id])) > seen.get(run_id, 0):
                newer[run_id] = number
        return News(requests=newer, lost=tuple(lost), state=seat.worker.state)

    async def facts(
        self, caller: Caller, run_id: RunId, token: int | None, asks: Sequence[Ask]
    ) -> tuple[Facts, Answers]:
        """All of one moment. What its agent is given as environment may be asked for too."""

        def query(tx: Transaction) -> tuple[Facts, Answers]:
            run = held(tx, seat_of(tx, caller), run_id, token)
            answers = answers_of(tx, run, asks)
            for ask in answers:
                if ask.what == "environment":
                    answers[ask] = environment_of(tx, run, self._kept.policy.secrets)
            return facts_of(tx, run, self._clock.wall_ms()), answers

        return await self._uow.read(query)

    async def spec(self, caller: Caller, run_id: RunId) -> RunSpec:
        """What a run of this server was given, for a worker that has a seat: batches are read with it."""

        def query(tx: Transaction) -> RunSpec:
            seat_of(tx, caller)
            return known(tx, run_id).spec

        return await self._uow.read(query)

    async def send(
        self, caller: Caller, run_id: RunId, batch: Batch,
        apply: Callable[[Transaction, Run, Seat], None] | None = None,
    ) -> Facts | None:  # fmt: skip
        """Apply a batch once. `apply`: what to do in its stead, for callers with batches of another shape."""

        def unit(tx: Transaction) -> Facts | None:
            seat = seat_of(tx, caller)
            last = tx.remote.last_batch(known(tx, run_id).pk)
            if last == batch.mark:
                return self._facts_after(tx, seat, run_id, batch.token)
            run = tx.runs.lock(held(tx, seat, run_id, batch.token).pk)
            check_order(last, batch)
            facts = facts_of(tx, run, self._clock.wall_ms())
            if apply is not None:
                apply(tx, run, seat)
            elif facts.base != batch.base:
                raise StaleFacts("the run has changed since", facts=facts)
            else:
                Application(tx, run, seat.worker, facts.now, self.redactor(tx, run)).apply(batch)
            tx.remote.applied(run.pk, batch.mark)
            return self._facts_after(tx, seat, run_id, batch.token)

        try:
            return await self._uow.write(unit)
        except PlaceDiffers as differs:
            facts, _ = await self.facts(caller, run_id, batch.token, ())
            raise StaleFacts("the workspace is not free", facts=facts, place_free=differs.free) from None

    def redactor(self, tx: Transaction, run: Run) -> Redactor:
        """What hides the values that the run was given, and the operator's own."""
        return self._kept.policy.redactor(environment_of(tx, run, self._kept.policy.secrets).values())

    def _facts_after(self, tx: Transaction, seat: Seat, run_id: RunId, token: int) -> Facts | None:
        try:
            run = held(tx, seat, run_id, token)
        except LeaseLost:
            return None
        return facts_of(tx, run, self._clock.wall_ms())

    async def show(self, caller: Caller, fragments: Sequence[Fragment]) -> int:
        """Pass on fragments of runs that are held; how many. Whoever looks sees them, and nobody else ever."""
        notices = await self._uow.read(lambda tx: live.notices(tx, caller, fragments, self.redactor))
        self._kept.notifier.publish(notices)
        return len(notices)

    async def give_up(self, caller: Caller, run_id: RunId, token: int, code: str, message: str) -> None:
        """End a held run that its worker cannot carry out."""

        def unit(tx: Transaction) -> None:
            seat, run = seat_of(tx, caller), known(tx, run_id)
            of_host(tx, caller, seat.worker.host_id, run)
            failure = Failure(code=code[:60], message=self.redactor(tx, run).text(message[:2000]))
            broken(tx, replace(run, token=token), seat.worker.pk, failure, self._clock.wall_ms())

        await self._uow.write(unit)

    async def hand_over(self, caller: Caller, tokens: Mapping[RunId, int]) -> None:
        """Note that the agents of these are left to the next worker of the host."""

        def unit(tx: Transaction) -> None:
            seat = seat_of(tx, caller)
            for run_id, token in tokens.items():
                try:
                    run = held(tx, seat, run_id, token)
                except LeaseLost:
                    continue
                if last_type(tx, run) == "run.handed_over":
                    continue  # it was said before, and the answer was lost
                draft = Draft(type="run.handed_over", data={"worker": seat.worker.id})
                moves.note(tx, run, self._clock.wall_ms(), draft)

        await self._uow.write(unit)

    async def leave(self, caller: Caller) -> None:
        """The worker is gone; one that never came is too."""
        now = self._clock.wall_ms()

        def unit(tx: Transaction) -> None:
            if tx.remote.seat(caller.worker_id) is not None:
                tx.workers.set_state(seat_of(tx, caller).worker.id, "gone", now)

        await self._uow.write(unit)
