"""The backends that this server offers, and what their preflights found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.domain.backend import BackendCheck
from overnight.domain.request import SteerHow, When
from overnight.domain.run import Run
from overnight.errors import OvernightError, UnknownBackend
from overnight.ids import HostId
from overnight.ports.backend import Backend
from overnight.ports.unit_of_work import UnitOfWork

FRESH_MS: Final = 10 * 60 * 1000
"""A check older than this is asked again."""

log = structlog.get_logger(__name__)


class Backends:
    """Backends by name. A preflight is cached until it is ten minutes old or program or configuration change."""

    def __init__(
        self, backends: Iterable[Backend], *, uow: UnitOfWork, clock: Clock, host_id: HostId
    ) -> None:
        self._backends = {backend.name: backend for backend in backends}
        self._uow = uow
        self._clock = clock
        self._host_id = host_id
        self._checks: dict[str, BackendCheck] = {}
        self._stored: dict[str, BackendCheck] = {}
        self._running: dict[str, asyncio.Task[BackendCheck]] = {}

    async def load(self) -> None:
        """Read the checks that an earlier server of this host has stored.

        They are shown only: a preflight of this process also tells the adapter what the host gives.
        """
        stored = await self._uow.read(lambda tx: tx.workers.checks(self._host_id))
        self._stored = {check.name: check for check in stored}

    def names(self) -> tuple[str, ...]:
        """All configured backends, sorted."""
        return tuple(sorted(self._backends))

    def get(self, name: str) -> Backend:
        """The backend of that name. Raises UnknownBackend that lists the known ones."""
        try:
            return self._backends[name]
        except KeyError:
            raise UnknownBackend(
                f"no backend is named {name!r}", mend=f"use one of: {', '.join(self.names())}"
            ) from None

    def known(self, name: str) -> BackendCheck | None:
        """The cached check, unless it is stale."""
        check = self._checks.get(name)
        if check is None or check.stamp != self.get(name).stamp():
            return None
        return check if self._clock.wall_ms() - check.checked_at < FRESH_MS else None

    def last(self, name: str) -> BackendCheck | None:
        """The last check, however old."""
        return self._checks.get(name) or self._stored.get(name)

    async def check(self, name: str) -> BackendCheck:
        """Run the preflight now (callers at the same time share one) and cache it."""
        task = self._running.get(name)
        if task is None:
            task = asyncio.create_task(self._check(name), name=f"preflight {name}")
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))
        return await asyncio.shield(task)

    async def look(self) -> None:
        """Run the preflights of which nothing fresh is known, one after the other."""
        for name in self.names():
            if self.known(name) is None:
                await self.check(name)

    def steer_how(self, run: Run, when: When | None) -> SteerHow:
        """How a text would reach this run's agent: into the turn, by ending it early, or with the next turn."""
        capabilities = self.get(run.backend).capabilities
        if when == "after_turn":
            return "queue"
        if capabilities.inject:
            return "inject"
        return "interrupt" if capabilities.interrupt else "queue"

    def refresh(self, name: str) -> None:
        """Run the preflight in the background when no fresh answer is known."""
        if self.known(name) is None and name not in self._running:
            task = asyncio.create_task(self._check(name), name=f"preflight {name}")
            self._running[name] = task
            task.add_done_callback(lambda done: self._refreshed(name, done))

    async def close(self) -> None:
        """End the preflights that still run."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _refreshed(self, name: str, task: asyncio.Task[BackendCheck]) -> None:
        self._running.pop(name, None)
        if not task.cancelled() and task.exception() is not None:
            log.warning("backend.check_failed", backend=name, error=repr(task.exception()))

    async def _check(self, name: str) -> BackendCheck:
        check = await self.get(name).check()
        self._checks[name] = check
        try:
            await self._uow.write(lambda tx: tx.workers.save_check(self._host_id, check))
        except OvernightError as error:
            # It is kept to be shown after a restart. Without it doctor still tells what is wrong, the disk for one.
            log.warning("backend.check_not_stored", backend=name, code=error.code, error=str(error))
        return check
