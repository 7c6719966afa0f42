"""`overnight worker`: carries out runs of a shared database, without an HTTP server, in the foreground."""

from __future__ import annotations

import asyncio
import gc
import sys

import structlog
import uvloop

from overnight.clock import SystemClock
from overnight.compose.carrying import carrying
from overnight.compose.ending import Ending, work_until_the_end
from overnight.compose.ground import ground
from overnight.compose.hosts import offered
from overnight.config import logging
from overnight.config.settings import Settings
from overnight.domain.redaction import Redactor
from overnight.domain.worker import Worker as WorkerRow
from overnight.errors import ConfigInvalid
from overnight.ports.meter import Unmetered
from overnight.version import VERSION

log = structlog.get_logger(__name__)


def work(settings: Settings, *, exit_when_idle: float | None) -> int:
    """Run until it ends in order; the exit status. Raises StartRefused in its kinds when it cannot start."""
    if not settings.postgres:
        raise ConfigInvalid(
            f"{settings.database} belongs to one server, which is its own worker",
            mend="set OVERNIGHT_DATABASE_URL to a Postgres database, name a server with --server, or use: overnight up",
        )
    secrets = [*settings.runs.secrets.values(), *settings.runs.hidden]
    logging.configure(settings.log.level, settings.log.format, settings.log.file, redactor=Redactor(secrets))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, exit_when_idle))
    return 0


async def _run(settings: Settings, exit_when_idle: float | None) -> None:
    ending = Ending()
    async with ground(settings, SystemClock(), working=True) as below:
        crew = await carrying(settings, below, Unmetered(), working=True)
        try:
            await crew.supervisor.start()
            gc.freeze()
            gc.enable()
            _announce(crew.shop.worker)
            await work_until_the_end(crew.supervisor, ending, crew.shop.clock, exit_when_idle)
        finally:
            await crew.shop.backends.close()


def _announce(worker: WorkerRow) -> None:
    """The words that a person at the terminal needs: what is on offer."""
    sys.stderr.write(f"Overnight {VERSION}: worker {worker.id} on {worker.host_name} ({worker.host_id})\n")
    sys.stderr.write(f"offers {offered(worker)}\n")
    sys.stderr.flush()
    log.info("worker.started", worker=worker.id, host=worker.host_id, backends=list(worker.backends))
