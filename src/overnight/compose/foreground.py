"""`overnight up`: the program in the foreground, until a signal, a handover, or nothing is left to do."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog
import uvloop

from overnight.compose import keys
from overnight.compose.ending import Ending, Reason, has_work
from overnight.compose.parts import Parts, listen, running
from overnight.config import logging, server_file
from overnight.config.settings import Settings
from overnight.domain.redaction import Redactor
from overnight.server.app import create_app
from overnight.server.login import issue_code
from overnight.server.serve import serving
from overnight.version import VERSION

log = structlog.get_logger(__name__)


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
        self._up = asyncio.Event()
        """What earlier servers have left is taken over."""

    async def run(self) -> None:
        ending = Ending()
        settings = self._settings
        async with running(
            settings, worker=self._worker, handover=lambda: ending.ask(Reason.HANDOVER)
        ) as parts:
            among = parts.host if settings.postgres else None
            await keys.configured_token(parts.store, parts.clock, settings.server.token, among)
            token = await keys.token_for_commands(parts.store, parts.clock, among)
            code = await issue_code(parts.store, parts.clock) if self._web else None
            server = replace(parts.services.settings, web=self._web)
            app = create_app(replace(parts.services, settings=server, ready=self._readiness(parts)))
            async with serving(app, listen(settings), end_streams=parts.end_waiting) as listening:
                # No agent is taken over or started before the address is ours and can be told.
                server_file.write(
                    settings.data_dir, listening.url, token, settings.sources.environment, version=VERSION
                )
                try:
                    await parts.supervisor.start(claiming=self._worker)
                    self._up.set()
                    _collect_from_now_on()
                    self._announce(listening.url, code)
                    await self._until_the_end(parts, ending)
                finally:
                    server_file.remove(settings.data_dir, settings.sources.environment)

    def _readiness(self, parts: Parts) -> Callable[[], Awaitable[Sequence[str]]]:
        """Why no work is taken now: to what the parts say comes whether this server has taken over."""

        async def ready() -> Sequence[str]:
            return await parts.services.ready() if self._up.is_set() else ("starting",)

        return ready

    def _announce(self, url: str, code: str | None) -> None:
        """The words that a person at the terminal needs; the code is good once.

        It stands behind a # in the address: a browser keeps that part to itself.
        """
        login = f"Log in, once: {url}/#code={code}\n" if code is not None else ""
        sys.stderr.write(f"Overnight {VERSION} at {url}\n{login}")
        sys.stderr.flush()
        log.info("server.started", url=url, version=VERSION, data_dir=str(self._settings.data_dir))

    async def _until_the_end(self, parts: Parts, ending: Ending) -> None:
        reason = await ending.reason(parts.clock, self._exit_when_idle, lambda: _is_busy(parts))
        log.info("server.stopping", reason=reason.value)
        parts.service.drain()
        if reason is Reason.HANDOVER:
            await parts.supervisor.handover()
        else:
            await parts.supervisor.shutdown()


def _collect_from_now_on() -> None:
    """What has been loaded stays for as long as the process: let no collection of garbage look at it again."""
    gc.freeze()
    gc.enable()


async def _is_busy(parts: Parts) -> bool:
    """Whether somebody reads, or any run could still go on without anybody asking for it."""
    return bool(parts.follower.watched or parts.supervisor.busy) or await has_work(parts.store)
