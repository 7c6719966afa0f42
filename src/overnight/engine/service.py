"""What people ask of runs: submit, control, retry, delete, preview. Each answer is durable before it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.placement import ANYWHERE, at_host
from overnight.domain.request import Principal, SteerHow
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.domain.values import WaitingFor
from overnight.engine.admission import Admission, Admitted
from overnight.engine.control import Control, Rules, control
from overnight.engine.folders import Folders, remove_folders
from overnight.engine.hosts import leave_behind
from overnight.engine.inheritance import inherited
from overnight.engine.policy import Storage
from overnight.engine.preview import Preview, Previewer
from overnight.engine.repeats import check_same
from overnight.engine.session_moves import receive, reopened, session_is_gone
from overnight.errors import (
    Conflict,
    CountMismatch,
    DiskFull,
    Draining,
    InvalidInput,
    OvernightError,
    RunNotFinal,
)
from overnight.ids import HostId, RunId, SessionId, new_run_id, new_session_id
from overnight.ports.tables import Idempotency, RunFilter
from overnight.ports.unit_of_work import Transaction, UnitOfWork

BULK_LIMIT: Final = 1000
"""Runs that one bulk action may touch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """What a bulk action did to one run: `run` after it, or the `error` that it met."""

    run_id: str
    run: Run | None = None
    error: OvernightError | None = None


class RunService:
    """Commands on runs. `free_bytes` tells how much disk is left for new work."""

    def __init__(
        self, *, uow: UnitOfWork, clock: Clock, admission: Admission, previewer: Previewer, rules: Rules,
        storage: Storage, host_id: HostId, free_bytes: Callable[[], int],
    ) -> None:  # fmt: skip
        self._uow = uow
        self._clock = clock
        self._admission = admission
        self._previewer = previewer
        self._rules = rules
        self._storage = storage
        self._folders = Folders(storage.data_dir)
        self._host_id = host_id
        self._free_bytes = free_bytes
        self._draining = False

    def drain(self) -> None:
        """Take no new work any more: `submit` and `retry` raise Draining from now on."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    async def submit(
        self, spec: RunSpec, by: Principal, *, idempotency: Idempotency | None = None
    ) -> tuple[Run, bool]:
        """Accept a run durably. The run, and whether it is new (False: an earlier request with the same key made it).

        Raises InvalidInput in its kinds, AboveCeiling, IdempotencyKeyReused, DiskFull, Draining.
        """
        if idempotency is not None and (known := await self._earlier(by, idempotency)):
            return known, False
        self.check_open()
        admitted = await self.admit(spec, by)
        return await self._uow.write(lambda tx: self.accept(tx, admitted, by, idempotency))

    async def admit(self, spec: RunSpec, by: Principal) -> Admitted:
        """Fill in what session and profile say, resolve and check; nothing is stored. Raises as `submit` does."""
        session = None
        if spec.session_id is not None:
            session_id = SessionId(spec.session_id)
            session = await self._uow.read(lambda tx: tx.sessions.get(session_id, by.owner))
        return await self._admission.admit(inherited(spec, session, self._admission.policy))

    async def preview(self, spec: RunSpec, by: Principal) -> Preview:
        """The prompt of the first turn and the resolved configuration; nothing is stored or started."""
        return await self._previewer.preview(await self.admit(spec, by), by)

    async def control(self, run_id: RunId, asked: Control, by: Principal) -> tuple[Run, SteerHow | None]:
        """Pause, resume, cancel or steer. The run after it, and for a steer how the text will reach the agent.

        Raises NotFound, InvalidTransition, ApprovalPending, InvalidInput.
        """

        def unit(tx: Transaction) -> tuple[Run, SteerHow | None]:
            run = tx.runs.lock(tx.runs.get(run_id, by.owner).pk)
            return control(tx, run, asked, by, now_ms=self._clock.wall_ms(), rules=self._rules)

        return await self._uow.write(unit)

    async def control_many(
        self, asked: Control, by: Principal, *, filter: RunFilter, expect_count: int | None
    ) -> Sequence[BulkResult]:
        """The same for every run that matches, each in a transaction of its own.

        Raises CountMismatch when `expect_count` is another number, InvalidInput above 1 000; then nothing was done.
        """
        page = await self._uow.read(
            lambda tx: tx.runs.page(replace(filter, owner=by.owner), limit=BULK_LIMIT + 1)
        )
        if len(page.runs) > BULK_LIMIT:
            raise InvalidInput(f"more than {BULK_LIMIT} runs match", mend="narrow the filter")
        if expect_count is not None and expect_count != len(page.runs):
            raise CountMismatch(f"{len(page.runs)} runs match, {expect_count} were expected")
        return [await self._control_one(run, asked, by) for run in page.runs]

    async def retry(self, run_id: RunId, by: Principal) -> Run:
        """A new run with the configuration of one that failed or was cancelled.

        Raises NotFound, RunNotFinal, Conflict for a completed one, and all that `submit` raises.
        """
        self.check_open()
        old, environment = await self._uow.read(lambda tx: _with_environment(tx, run_id, by.owner))
        if not old.final:
            raise RunNotFinal(f"{old.id} is {old.state}", mend="cancel it first")
        if old.state is State.COMPLETED:
            raise Conflict(f"{old.id} is completed: there is nothing to retry", mend="submit a new run")
        spec = replace(old.spec, environment=environment, session_id=None, not_before=None)
        admitted = await self._admission.admit(spec)
        run, _ = await self._uow.write(lambda tx: self.accept(tx, admitted, by, None, retry_of=old.id))
        return run

    async def delete(self, run_id: RunId, by: Principal) -> None:
        """Remove a final run with its events and files, and the agents' homes with the session's last run.

        Raises NotFound, RunNotFinal.
        """

        def unit(tx: Transaction) -> list[Path]:
            run = tx.runs.lock(tx.runs.get(run_id, by.owner).pk)
            if not run.final:
                raise RunNotFinal(f"{run.id} is {run.state}", mend="cancel it first")
            tx.runs.delete(run.pk)
            gone = [self._folders.run(run.id)]
            if session_is_gone(tx, run.session_id):
                gone += self._folders.of_session(run.session_id)
            leave_behind(tx, run, self._host_id, self._folders.named(gone))
            return gone

        await asyncio.to_thread(remove_folders, await self._uow.write(unit))

    def check_open(self) -> None:
        """Raise Draining or DiskFull when no new work is taken."""
        if self._draining:
            raise Draining(mend="try again once the server is up again")
        free = self._free_bytes()
        if free < self._storage.reserve_bytes:
            raise DiskFull(
                f"{free} bytes are free, {self._storage.reserve_bytes} are kept in reserve",
                mend="free some disk space, or delete runs; reads and cancels still work",
            )

    async def _earlier(self, by: Principal, idempotency: Idempotency) -> Run | None:
        found = await self._uow.read(
            lambda tx: tx.runs.same_request(by.owner, idempotency.route, idempotency.key)
        )
        return _matching(found, idempotency)

    def accept(
        self, tx: Transaction, admitted: Admitted, by: Principal, idempotency: Idempotency | None = None,
        *, retry_of: RunId | None = None, heard: bool = False,
    ) -> tuple[Run, bool]:  # fmt: skip
        """Store an admitted run inside a unit, and whether it is new. Raises IdempotencyKeyReused, SessionExpired.

        The goal of a chat run is its first message, unless it waits in the session already (`heard`).
        """
        if idempotency is not None:
            found = tx.runs.same_request(by.owner, idempotency.route, idempotency.key)
            if earlier := _matching(found, idempotency):
                return earlier, False
        now = self._clock.wall_ms()
        session, told = self._session(tx, admitted.spec, by, now)
        run = tx.runs.add(
            replace(self._queued(admitted, by, session, now, retry_of), place=_place(tx, admitted, session)),
            secret_environment=admitted.environment,
            idempotency=idempotency,
        )
        if admitted.workspace is not None:
            tx.runs.set_workspace(run.pk, admitted.workspace, admitted.chain)
        if run.spec.mode == "chat" and not heard:
            tx.events.append(session.pk, told, now)
            told = ()
            receive(tx, session, run.spec.goal, by, now)
        data = {"goal": run.spec.goal, "backend": run.backend, "mode": run.spec.mode, "by": by.name}
        queued = tx.events.append(run.pk, [Draft(type="run.queued", data=data | _retry(retry_of))], now)
        tx.events.append(session.pk, [*told, Draft(type="run.linked", data={"run_id": run.id})], now)
        return replace(run, last_seq=queued[-1].seq, last_event_at=now), True

    def _queued(
        self, admitted: Admitted, by: Principal, session: Session, now: int, retry_of: RunId | None
    ) -> Run:
        due_later = admitted.not_before is not None and admitted.not_before > now
        return Run(
            pk=0, id=new_run_id(now), owner=by.owner, state=State.QUEUED,
            spec=replace(admitted.spec, session_id=session.id),
            session_pk=session.pk, session_id=session.id, retry_of=retry_of, host_id=self._host_id,
            workspace=admitted.workspace, created_at=now, updated_at=now, not_before=admitted.not_before,
            waiting_for=WaitingFor(kind="time") if due_later else None,
            sandbox_effective=admitted.sandbox_effective,
        )  # fmt: skip

    def _session(
        self, tx: Transaction, spec: RunSpec, by: Principal, now: int
    ) -> tuple[Session, Sequence[Draft]]:
        """The session that the run belongs to, and what is still to be told in it."""
        if spec.session_id is not None:
            session = tx.sessions.lock(tx.sessions.get(SessionId(spec.session_id), by.owner).pk)
            return reopened(tx, session, by, now), ()
        name = spec.goal.strip().splitlines()[0][:80]
        made = tx.sessions.add(
            Session(pk=0, id=new_session_id(now), owner=by.owner, name=name, mode=spec.profile or spec.mode,
                    created_at=now, updated_at=now)
        )  # fmt: skip
        return made, (Draft(type="session.created", data={"name": name, "mode": spec.mode}),)

    async def _control_one(self, run: Run, asked: Control, by: Principal) -> BulkResult:
        try:
            after, _ = await self.control(run.id, asked, by)
        except OvernightError as error:
            return BulkResult(run_id=run.id, error=error)
        return BulkResult(run_id=run.id, run=after)


def _place(tx: Transaction, admitted: Admitted, session: Session) -> str:
    """A conversation goes on where its folder is: with the host of its last run, once that has begun."""
    spec = admitted.spec
    if admitted.place == ANYWHERE and spec.workspace is None and spec.mode == "chat" and spec.session_id:
        for last in tx.runs.page(RunFilter(session_id=session.id), limit=1).runs:
            return at_host(last.host_id) if last.turn else last.place
    return admitted.place


def _with_environment(tx: Transaction, run_id: RunId, owner: str) -> tuple[Run, dict[str, str]]:
    run = tx.runs.get(run_id, owner)
    return run, tx.runs.secret_environment(run.pk)


def _matching(found: tuple[Idempotency, Run] | None, asked: Idempotency) -> Run | None:
    if found is None:
        return None
    check_same(found[0], asked, run_id=found[1].id)
    return found[1]


def _retry(retry_of: RunId | None) -> dict[str, str]:
    return {"retry_of": retry_of} if retry_of else {}
