"""Runs from a server elsewhere: the run source of a worker without a database."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import structlog

from overnight.client.worker.conduct import Reported
from overnight.client.worker.length import LeaseLength
from overnight.client.worker.unit_of_work import FIRST_REST_S, LONGEST_REST_S, PASSING, RemoteUnitOfWork
from overnight.clock import Clock
from overnight.domain.lease import Lease
from overnight.domain.run import Run
from overnight.domain.values import Failure
from overnight.domain.worker import Worker
from overnight.errors import LeaseLost, NotFound
from overnight.ids import RunId, new_worker_id
from overnight.ports.lease_desk import LeaseDesk
from overnight.ports.notifier import Notice, Notifier, requests_topic
from overnight.ports.remote import Granted, Report

PARTING_S: Final = 1.0
"""How long a worker that ends tries to say so."""
T = TypeVar("T")

log = structlog.get_logger(__name__)


class RemoteRunSource:
    """See `ports.run_source.RunSource`. What it leases is held by `uow`."""

    def __init__(
        self, desk: LeaseDesk, uow: RemoteUnitOfWork, clock: Clock, notifier: Notifier, worker: Worker,
        length: LeaseLength, conduct: Reported,
    ) -> None:  # fmt: skip
        self._desk = desk
        self._uow = uow
        self._clock = clock
        self._notifier = notifier
        self._worker = worker
        self._length = length
        self._conduct = conduct
        self._offer: tuple[str, Report] | None = None
        """Set while the answer to an offer is still awaited: then the same offer is made again."""

    async def claim(self, free: int) -> tuple[Run, ...]:
        """See the port."""
        if self._offer is None:
            request_id = new_worker_id(self._clock.wall_ms()).replace("wrk_", "req_")
            self._offer = request_id, self._conduct.take()
        request_id, report = self._offer
        sent_at, lease_s, checks = self._clock.boot(), self._length.seconds, self._uow.checks()
        grant = await self._desk.grant(self._worker, free, request_id, checks, report, lease_s)
        self._offer = None
        self._length.heard(grant.lease_s)
        self._uow.told_checks(checks)
        for granted in grant.runs:
            self._uow.hold(granted, sent_at + lease_s)
        return tuple(granted.facts.run for granted in grant.runs)

    async def take(self, run: Run) -> Run:
        """See the port."""
        sent_at, lease_s = self._clock.boot(), self._length.seconds
        granted: Granted = await self._patiently(
            lambda: self._desk.take(self._worker, run, lease_s), sent_at + lease_s
        )
        self._uow.hold(granted, sent_at + lease_s)
        return granted.facts.run

    async def look(self, run_id: RunId) -> Run:
        """See the port. A run that this host does not hold any more is as good as gone."""
        try:
            return await self._desk.look(self._worker, run_id)
        except LeaseLost as error:
            raise NotFound(str(error)) from None

    async def renew(self, tokens: Mapping[int, int]) -> frozenset[int]:
        """See the port."""
        sent_at, lease_s = self._clock.boot(), self._length.seconds
        held = {pk: self._uow.run_of(pk) for pk in tokens}
        known = {pk: found for pk, found in held.items() if found is not None and found[1] == tokens[pk]}
        renewal = await self._desk.renew(self._worker, dict(known.values()), lease_s)
        self._length.heard(renewal.lease_s)
        refused = [pk for pk in tokens if pk not in known or known[pk][0] in renewal.lost]
        for pk in tokens.keys() - set(refused):
            self._uow.renewed(pk, sent_at + lease_s)
        heard = [self._uow.heard_lost(pk, tokens[pk], "another holder has taken it") for pk in refused]
        lost = {pk for pk, is_lost in zip(refused, await asyncio.gather(*heard), strict=True) if is_lost}
        asked = [pk for pk, (run_id, _) in known.items() if renewal.requests.get(run_id)]
        self._notifier.publish([Notice(topic=requests_topic(pk)) for pk in asked])
        return frozenset(lost)

    async def fail(self, run: Run, failure: Failure) -> None:
        """See the port."""
        await self._desk.give_up(self._worker, run, failure.code, failure.message)
        self._uow.lost(run.pk, run.token, "it was given up")

    async def hand_over(self, leases: Sequence[Lease]) -> None:
        """See the port."""
        known = [self._uow.run_of(lease.run_pk) for lease in leases]
        held = dict(one for one in known if one is not None)
        await self._parting(lambda: self._desk.hand_over(self._worker, held))

    async def succeed(self) -> tuple[Run, ...]:
        """See the port. Waits for the server however long it is away."""
        return await self._patiently(lambda: self._desk.succeed(self._worker), math.inf)

    async def leave(self) -> None:
        """See the port."""
        await self._parting(lambda: self._desk.leave(self._worker))

    async def _patiently(self, call: Callable[[], Awaitable[T]], until: float) -> T:
        """The answer to a call that may be made twice, asking again until that boot time."""
        rest = FIRST_REST_S
        while True:
            try:
                return await call()
            except PASSING as error:
                if self._clock.boot() + rest >= until:
                    raise
                log.warning("server.not_reached", code=error.code, error=str(error))
            await self._clock.sleep(rest)
            rest = min(LONGEST_REST_S, rest * 2)

    async def _parting(self, call: Callable[[], Awaitable[None]]) -> None:
        """Last words. A server that is away finds out by itself, once the leases run out."""
        try:
            await self._patiently(call, self._clock.boot() + PARTING_S)
        except PASSING as error:
            log.warning("server.not_told", code=error.code, error=str(error))
