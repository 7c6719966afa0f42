"""What the store suites stand on: a unit of work with clocks and notifier, and short ways to put rows there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from overnight.domain.event import Draft
from overnight.domain.lease import Lease
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.spec import RunSpec
from overnight.domain.states import Input, State
from overnight.domain.worker import Offer, Worker
from overnight.ids import (
    HostId,
    new_host_id,
    new_run_id,
    new_session_id,
    new_worker_id,
)
from overnight.ports.notifier import Notifier
from overnight.ports.tables import Idempotency
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.testing.clocks import ManualClock

LEASE_S = 15.0


@dataclass(slots=True, kw_only=True)
class Stage:
    """An empty, started store. The suites' fixture `stage` gives one; whoever makes it closes the store after."""

    uow: UnitOfWork
    notifier: Notifier
    clock: ManualClock
    host: HostId = field(default_factory=lambda: new_host_id(0))

    async def session(self, owner: str = "usr_local", **changes: Any) -> Session:
        """A new session."""
        return await self.uow.write(lambda tx: self.add_session(tx, owner, **changes))

    def add_session(self, tx: Transaction, owner: str = "usr_local", **changes: Any) -> Session:
        """The same inside a unit."""
        now = self.clock.wall_ms()
        values: dict[str, Any] = {
            "name": "s",
            "mode": "continuous",
            "created_at": now,
            "updated_at": now,
        } | changes
        return tx.sessions.add(Session(pk=0, id=new_session_id(now), owner=owner, **values))

    async def run(self, **asked: Any) -> Run:
        """A new queued run in a session of its own; see `add_run`."""
        return await self.uow.write(lambda tx: self.add_run(tx, **asked))

    def add_run(
        self,
        tx: Transaction,
        *,
        owner: str = "usr_local",
        session: Session | None = None,
        spec: Mapping[str, Any] | None = None,
        chain: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        idempotency: Idempotency | None = None,
        **changes: Any,
    ) -> Run:
        """A new queued run with its first event; `changes` go to the run, `spec` to its specification."""
        now = self.clock.wall_ms()
        session = session or self.add_session(tx, owner)
        run = Run(
            pk=0,
            id=new_run_id(now),
            owner=owner,
            state=State.QUEUED,
            spec=RunSpec(**({"goal": "Do it.", "backend": "echo"} | dict(spec or {}))),
            session_pk=session.pk,
            session_id=session.id,
            host_id=self.host,
            workspace=None,
            created_at=now,
            updated_at=now,
        )
        run = tx.runs.add(
            replace(run, **changes), secret_environment=environment or {}, idempotency=idempotency
        )
        if chain:
            tx.runs.set_workspace(run.pk, "/w", chain)
        tx.events.append(run.pk, [Draft(type="run.queued")], now)
        return tx.runs.lock(run.pk)

    async def worker(self, *, quarantine_after: int = 0, **changes: Any) -> Worker:
        """A registered worker, of this host unless `changes` say otherwise."""
        now = self.clock.wall_ms()
        worker = Worker(
            pk=0,
            id=new_worker_id(now),
            host_id=self.host,
            host_name="here",
            pid=1,
            version="1",
            slots=8,
            backends=("echo", "other"),
            started_at=now,
            seen_at=now,
        )
        worker = replace(worker, **changes)
        return await self.uow.write(lambda tx: tx.workers.add(worker, quarantine_after=quarantine_after))

    def offer(self, worker: Worker, free: int = 1, *backends: str, **changes: Any) -> Offer:
        """What that worker can take; `changes` are further fields, such as limits."""
        offer = Offer(
            worker_pk=worker.pk, host_id=worker.host_id, backends=backends or worker.backends, free=free,
            places=worker.places, labels=worker.labels,
        )  # fmt: skip
        return replace(offer, **changes)

    async def claim(self, worker: Worker, free: int = 1, *backends: str, **changes: Any) -> list[Run]:
        """Claim and set running, as workers do."""
        offer = self.offer(worker, free, *backends, **changes)

        def unit(tx: Transaction) -> list[Run]:
            now = self.clock.wall_ms()
            return [
                tx.runs.save(run.moved(Input.CLAIM, now, worker=worker.id, started_at=run.started_at or now))
                for run in tx.leases.claim(offer, now)
            ]

        return await self.uow.write(unit)

    async def held(self, **asked: Any) -> tuple[Run, Lease, Worker]:
        """A new run that a new worker has claimed, and its lease."""
        run, worker = await self.run(**asked), await self.worker()
        claimed = [found for found in await self.claim(worker, 100) if found.pk == run.pk]
        assert claimed, "the run was not claimed"
        return claimed[0], self.lease(claimed[0]), worker

    def lease(self, run: Run) -> Lease:
        """The lease that a claim of this moment gives."""
        return Lease(run_pk=run.pk, token=run.token, trusted_until=self.clock.boot() + LEASE_S)

    async def move(self, run: Run, input: Input, **changes: Any) -> Run:
        """Move a run and save it; the hold ends where the new state has none."""

        def unit(tx: Transaction) -> Run:
            saved = tx.runs.save(tx.runs.lock(run.pk).moved(input, self.clock.wall_ms(), **changes))
            if saved.state in {State.QUEUED, State.PAUSED, State.WAITING}:
                tx.leases.drop(saved.pk)
            return saved

        return await self.uow.write(unit)

    async def finish(self, run: Run) -> Run:
        """Complete a running run."""
        return await self.move(run, Input.COMPLETE)

    async def get(self, run: Run) -> Run:
        """As it is now."""
        return await self.uow.read(lambda tx: tx.runs.get(run.id, None))
