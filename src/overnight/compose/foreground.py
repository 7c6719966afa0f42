"""`overnight up`: the program in the foreground, until a signal, a handover, or nothing is left to do."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import Enum

import structlog
import uvloop

from overnight.compose import keys
from overnight.compose.parts import VERSION, Parts, listen, running
from overnight.config import logging, server_file
from overnight.config.settings import Settings
from overnight.domain.redaction import Redactor
from overnight.domain.states import FINAL, State
from overnight.ports.tables import RunFilter
from overnight.server.app import create_app
from overnight.server.login import issue_code
from overnight.server.serve import serving

IDLE_LOOK_S = 0.5
"""How often a server that ends when idle looks whether it is."""

log = structlog.get_logger(__name__)


class Reason(Enum):
    """Why the program ends."""

    SIGNAL = "signal"
    HANDOVER = "handover"
    IDLE = "idle"


def serve(settings: Settings, *, worker: bool, web: bool, exit_when_idle: float | None) -> int:
    """Run until it ends in order; the exit status. Raises StartRefused in its kinds when it cannot start."""
    secrets = [*settings.runs.secrets.values(), *settings.runs.hidden]
    logging.configure(settings.log.level, settings.log.format, settings.log.file, redactor=Redactor(secrets))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Foreground(settings, worker=worker, web=web, exit_when_idle=exit_when_idle).run())
    return 0


class _Foreground:
    def __init__(self, settings: Settings, *, worker: bool, web: bool, exit_when_idle: float | None) -> None:
        self._settings = settings
        self._worker = worker
        self._web = web
        self._exit_when_idle = exit_when_idle
        self._end: asyncio.Future[Reason]
        self._up = asyncio.Event()
        """What earlier servers have left is taken over."""

    async def run(self) -> None:
        self._end = asyncio.get_running_loop().create_future()
        self._obey_signals()
        settings = self._settings
        async with running(
            settings, worker=self._worker, handover=lambda: self._stop(Reason.HANDOVER)
        ) as parts:
            await keys.configured_token(parts.store, parts.clock, settings.server.token)
            token = await keys.token_for_commands(parts.store, parts.clock)
            code = await issue_code(parts.store, parts.clock) if self._web else None
            server = replace(parts.services.settings, web=self._web)
            app = create_app(replace(parts.services, settings=server, ready=self._readiness(parts)))
            async with serving(app, listen(settings), end_streams=parts.follower.close) as listening:
                # No agent is taken over or started before the address is ours and can be told.
                server_file.write(
                    settings.data_dir, listening.url, token, settings.sources.environment, version=VERSION
                )
                try:
                    await parts.supervisor.start(claiming=self._worker)
                    self._up.set()
                    _collect_from_now_on()
                    self._announce(listening.url, code)
                    await self._until_the_end(parts)
                finally:
                    server_file.remove(settings.data_dir, settings.sources.environment)

    def _readiness(self, parts: Parts) -> Callable[[], Awaitable[Sequence[str]]]:
        """Why no work is taken now: to what the parts say comes whether this server has taken over."""

        async def ready() -> Sequence[str]:
            return await parts.services.ready() if self._up.is_set() else ("starting",)

        return ready

    def _obey_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, Reason.SIGNAL)
        loop.add_signal_handler(signal.SIGUSR2, self._stop, Reason.HANDOVER)

    def _stop(self, reason: Reason) -> None:
        if not self._end.done():
            self._end.set_result(reason)

    def _announce(self, url: str, code: str | None) -> None:
        """The words that a person at the terminal needs; the code is good once.

        It stands behind a # in the address: a browser keeps that part to itself.
        """
        login = f"Log in, once: {url}/#code={code}\n" if code is not None else ""
        sys.stderr.write(f"Overnight {VERSION} at {url}\n{login}")
        sys.stderr.flush()
        log.info("server.started", url=url, version=VERSION, data_dir=str(self._settings.data_dir))

    async def _until_the_end(self, parts: Parts) -> None:
        idle = asyncio.create_task(self._mind_idleness(parts), name="idleness")
        try:
            reason = await self._end
        finally:
            idle.cancel()
            await asyncio.gather(idle, return_exceptions=True)
        log.info("server.stopping", reason=reason.value)
        parts.service.drain()
        if reason is Reason.HANDOVER:
            await parts.supervisor.handover()
        else:
            await parts.supervisor.shutdown()

    async def _mind_idleness(self, parts: Parts) -> None:
        if self._exit_when_idle is None:
            return
        idle_since = parts.clock.boot()
        while parts.clock.boot() - idle_since < self._exit_when_idle:
            await parts.clock.sleep(min(IDLE_LOOK_S, self._exit_when_idle))
            if await _is_busy(parts):
                idle_since = parts.clock.boot()
        self._stop(Reason.IDLE)


def _collect_from_now_on() -> None:
    """What has been loaded stays for as long as the process: let no collection of garbage look at it again."""
    gc.freeze()
    gc.enable()


async def _is_busy(parts: Parts) -> bool:
    """Whether somebody reads, or any run could still go on without anybody asking for it."""
    if parts.follower.watched or parts.supervisor.busy:
        return True
    live = tuple(state for state in State if state not in FINAL | {State.PAUSED, State.WAITING})
    return bool(await parts.store.read(lambda tx: tx.runs.counts(RunFilter(states=live))))
