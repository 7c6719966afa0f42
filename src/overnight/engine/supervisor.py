"""The supervisor: takes over what an earlier server has left, then keeps worker and duties going until the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from overnight.clock import Clock
from overnight.engine.waiting import end
from overnight.engine.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.errors import OvernightError
from overnight.ports.run_source import RunSource

SWEEP_S: Final = 1.5
"""What an orderly end may take beyond the agents' grace."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """Something that is done again and again beside the runs."""

    name: str
    every_s: float
    once: Callable[[], Awaitable[object]]


class Attendant:
    """Of a server that carries nothing out: it minds the background duties. `start`, then one of the two ends."""

    def __init__(self, shop: Workshop, source: RunSource, duties: Sequence[Duty]) -> None:
        self._clock = shop.clock
        self._source = source
        self._duties = duties
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def busy(self) -> int:
        """Nothing is carried out here."""
        return 0

    async def start(self, *, claiming: bool = False) -> None:
        """Begin to do the duties. Nothing is ever claimed."""
        del claiming
        self._tasks = [
            asyncio.create_task(repeat(duty, self._clock), name=duty.name) for duty in self._duties
        ]

    async def shutdown(self) -> None:
        """End."""
        await end(*self._tasks)
        await leave(self._source)

    async def handover(self) -> None:
        """The same: nobody has to be left to anybody."""
        await self.shutdown()


class Supervisor:
    """Owns the worker of this process and the background duties. `start`, then exactly one of the two ends."""

    def __init__(
        self, shop: Workshop, worker: Worker, source: RunSource, duties: Sequence[Duty] = ()
    ) -> None:
        self._shop = shop
        self._worker = worker
        self._source = source
        self._duties = duties
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def busy(self) -> int:
        """How many runs are carried out now."""
        return self._worker.busy

    async def start(self, *, claiming: bool = True) -> None:
        """Take over every held run of this host under a new token, then begin to claim and to do the duties."""
        held = await self._source.succeed()
        await asyncio.gather(*(self._worker.adopt(run, "server_gone") for run in held))
        if held:
            log.info("runs.taken_over", count=len(held))
        self._worker.start(claiming=claiming)
        self._tasks = [asyncio.create_task(self._repeat(duty), name=duty.name) for duty in self._duties]

    async def shutdown(self) -> None:
        """The orderly end: no agent is left, every run is handed back and uses up no attempt.

        Takes at most the agents' grace and 1.5 s.
        """
        await end(*self._tasks)
        await self._worker.shutdown(self._shop.timing.grace_s + SWEEP_S)
        await leave(self._source)

    async def handover(self) -> None:
        """The end at once: agents go on, and the next server of this host adopts them."""
        await end(*self._tasks)
        await self._worker.handover()
        await leave(self._source)

    async def _repeat(self, duty: Duty) -> None:
        await repeat(duty, self._shop.clock)


async def leave(source: RunSource) -> None:
    """Say that this process is gone. Where nobody can be told, its silence will."""
    try:
        await source.leave()
    except OvernightError as error:
        log.warning("worker.left_unsaid", code=error.code, error=str(error))


async def repeat(duty: Duty, clock: Clock) -> None:
    """Do it now and after every pause, whatever goes wrong; until cancelled."""
    while True:
        try:
            await duty.once()
        except OvernightError as error:
            log.warning("duty.failed", duty=duty.name, code=error.code, error=str(error))
        except Exception:  # one duty that goes wrong must not take the others along
            log.exception("duty.broken", duty=duty.name)
        await clock.sleep(duty.every_s)
