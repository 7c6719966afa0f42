"""Backends as a server sees them that carries nothing out: what the workers that offer them have found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Problem
from overnight.engine.directory import Backends
from overnight.ids import HostId
from overnight.ports.backend import Backend
from overnight.ports.unit_of_work import Transaction, UnitOfWork

FRESH_S: Final = 10.0
"""How long what the workers have found is not asked for again."""
_RANK: Final = {"ok": 0, "warn": 1, "fail": 2}


class OfferedBackends(Backends):
    """No preflight runs here: this machine says nothing about those on which the work is done."""

    def __init__(
        self, backends: Iterable[Backend], *, uow: UnitOfWork, clock: Clock, host_id: HostId
    ) -> None:
        super().__init__(backends, uow=uow, clock=clock, host_id=host_id)
        self._asked: dict[str, float] = {}

    def known(self, name: str) -> BackendCheck | None:
        """See `Backends.known`."""
        self.get(name)
        asked = self._asked.get(name)
        fresh = asked is not None and self._clock.boot() - asked < FRESH_S
        return self._checks.get(name) if fresh else None

    async def _check(self, name: str) -> BackendCheck:
        """The best that any worker has found which offers it now: a run goes where it can."""
        found = await self._uow.read(lambda tx: _found(tx, name))
        check = (
            min(found, key=lambda one: (_RANK[one.status], -one.checked_at)) if found else self._nobody(name)
        )
        self._checks[name] = check
        self._asked[name] = self._clock.boot()
        return check

    def _nobody(self, name: str) -> BackendCheck:
        problem = Problem(
            code="no_worker",
            message="no worker that offers it has looked at it yet; runs wait for one",
            mend="start a worker on a host where it is installed: overnight worker",
        )
        return BackendCheck(
            name=name, status="warn", capabilities=self.get(name).capabilities, problems=(problem,),
            checked_at=self._clock.wall_ms(),
        )  # fmt: skip


def _found(tx: Transaction, name: str) -> list[BackendCheck]:
    hosts = {
        worker.host_id for worker in tx.workers.all() if worker.state != "gone" and name in worker.backends
    }
    return [check for host in hosts for check in tx.workers.checks(host) if check.name == name]
