"""What ends a program in the foreground: a signal, a handover, or that nothing is left to do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, Final, TypeVar

import structlog

from overnight.clock import Clock
from overnight.domain.states import FINAL, State
from overnight.engine import waiting
from overnight.engine.supervisor import Attendant, Supervisor
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import UnitOfWork

IDLE_LOOK_S: Final = 0.5
"""How often a program that ends when idle looks whether it is."""
LIVE: Final = tuple(state for state in State if state not in FINAL | {State.PAUSED, State.WAITING})
"""Runs in these states could go on without anybody asking for it."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Reason(Enum):
    """Why the program ends."""

    SIGNAL = "signal"
    HANDOVER = "handover"
    IDLE = "idle"


class Ending:
    """The end of one program, once. SIGTERM, SIGHUP and SIGINT end it in order, SIGUSR2 hands over."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._reason: asyncio.Future[Reason] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.add_signal_handler(number, self.ask, Reason.SIGNAL)
        loop.add_signal_handler(signal.SIGUSR2, self.ask, Reason.HANDOVER)

    def ask(self, reason: Reason) -> None:
        """End; the first reason counts."""
        if not self._reason.done():
            self._reason.set_result(reason)

    async def unless_asked(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` gives, or None when the end comes first: then `work` has been given up."""
        return await waiting.unless(asyncio.shield(self._reason), work)

    async def reason(
        self, clock: Clock, patience_s: float | None, busy: Callable[[], Awaitable[bool]]
    ) -> Reason:
        """Wait for the end. With `patience_s` it also comes when nothing was `busy` for so long."""
        idle = asyncio.create_task(self._mind_idleness(clock, patience_s, busy), name="idleness")
        try:
            return await self._reason
        finally:
            idle.cancel()
            await asyncio.gather(idle, return_exceptions=True)

    async def _mind_idleness(
        self, clock: Clock, patience_s: float | None, busy: Callable[[], Awaitable[bool]]
    ) -> None:
        if patience_s is None:
            return
        idle_since = clock.boot()
        while clock.boot() - idle_since < patience_s:
            await clock.sleep(min(IDLE_LOOK_S, patience_s))
            if await busy():
                idle_since = clock.boot()
        self.ask(Reason.IDLE)


async def has_work(uow: UnitOfWork) -> bool:
    """Whether any run could go on."""
    return bool(await uow.read(lambda tx: tx.runs.counts(RunFilter(states=LIVE))))


async def work_until_the_end(
    supervisor: Supervisor | Attendant, ending: Ending, clock: Clock, patience_s: float | None
) -> None:
    """A worker without an HTTP server: until its end, and then that end. `patience_s` as in `Ending.reason`."""

    async def busy() -> bool:
        return bool(supervisor.busy)

    reason = await ending.reason(clock, patience_s, busy)
    log.info("worker.stopping", reason=reason.value)
    if reason is Reason.HANDOVER:
        await supervisor.handover()
    else:
        await supervisor.shutdown()
