"""`overnight worker --server URL`: carries out runs of a server elsewhere. No database, and nothing that needs one."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson
import structlog
import uvloop

from overnight.client.endpoint import Endpoint
from overnight.client.worker.calls import Calls
from overnight.client.worker.clock import ServedClock
from overnight.client.worker.conduct import Reported
from overnight.client.worker.desk import ROOT, RestLeaseDesk
from overnight.client.worker.fragments import Fragments
from overnight.client.worker.length import LeaseLength
from overnight.client.worker.source import RemoteRunSource
from overnight.client.worker.unit_of_work import PASSING, RemoteUnitOfWork
from overnight.client.worker.watch import Watch
from overnight.clock import Clock, SystemClock
from overnight.compose import agents, confinement, hosts
from overnight.compose.agent_access import access_elsewhere
from overnight.compose.ending import Ending, work_until_the_end
from overnight.compose.ground import make_folders
from overnight.config import logging
from overnight.config.settings import LEAST_SLACK_S, MARGIN_S, RENEWALS, SWEEP_S, Settings
from overnight.domain.redaction import Redactor
from overnight.domain.worker import Worker as WorkerRow
from overnight.engine.directory import Backends
from overnight.engine.folders import Folders
from overnight.engine.policy import Timing
from overnight.engine.supervisor import Duty, Supervisor
from overnight.engine.waiting import end
from overnight.engine.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.errors import ConfigInvalid, OvernightError, Unreachable
from overnight.ids import new_worker_id
from overnight.ports.remote import Grant
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.lock import DataLock
from overnight.version import VERSION
from overnight.workspaces.directories import DirectoryWorkspaces

if TYPE_CHECKING:
    from overnight.client.transport import Transport

POLL_S: Final = 2.0
"""The slow poll behind the long poll."""
LONGEST_REST_S: Final = 10.0
"""Between two tries to reach a server that has never answered yet."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A worker of a server elsewhere, made and not started."""

    shop: Workshop
    supervisor: Supervisor
    watch: Watch
    fragments: Fragments


def work(settings: Settings, server: str, *, insecure: bool, exit_when_idle: float | None) -> int:
    """Run until it ends in order; the exit status. Raises StartRefused in its kinds, ConfigInvalid."""
    endpoint = endpoint_of(server, settings.server.token, insecure=insecure)
    secrets = [*settings.runs.secrets.values(), *settings.runs.hidden, endpoint.token]
    logging.configure(settings.log.level, settings.log.format, settings.log.file, redactor=Redactor(secrets))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, endpoint, exit_when_idle))
    return 0


def endpoint_of(server: str, token: str | None, *, insecure: bool) -> Endpoint:
    """Where the server is. Raises ConfigInvalid: what runs are given travels only over TLS, or within the machine."""
    if token is None:
        raise ConfigInvalid(
            "a worker needs a token of its own",
            mend="make one on the server with: overnight token new NAME --kind worker; set it as OVERNIGHT_TOKEN",
        )
    endpoint = Endpoint(server, token)
    parts = urlsplit(server)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not insecure:
        raise ConfigInvalid(
            f"{server} is not encrypted: goals, outputs and environment values would travel in the open",
            mend="use https://, or --insecure within a network that you trust like one machine",
        )
    return endpoint


async def _run(settings: Settings, endpoint: Endpoint, exit_when_idle: float | None) -> None:
    ending = Ending()
    async with AsyncExitStack() as made:
        # A server that is away is waited for without end, but not by whoever wants to leave.
        crew = await ending.unless_asked(made.enter_async_context(elsewhere(settings, endpoint)))
        if crew is None:
            return
        watching = asyncio.create_task(crew.watch.follow(), name="watch")
        showing = asyncio.create_task(crew.fragments.forward(), name="fragments")
        try:
            await crew.supervisor.start()
            gc.collect()
            gc.freeze()
            gc.enable()
            _announce(crew.shop.worker, endpoint)
            await work_until_the_end(crew.supervisor, ending, crew.shop.clock, exit_when_idle)
        finally:
            await end(watching, showing)


@asynccontextmanager
async def elsewhere(settings: Settings, endpoint: Endpoint) -> AsyncIterator[Elsewhere]:
    """Made, and the server greeted, however long it takes to reach it. Raises DataInUse, StartRefused."""
    make_folders(settings.data_dir)
    system = SystemClock()
    locks = [DataLock(settings.data_dir, system), hosts.worker_lock(settings, system)]
    taken: list[DataLock] = []
    calls = _calls(settings, endpoint)
    try:
        for lock in locks:
            lock.acquire()
            taken.append(lock)
        async with _made(settings, endpoint, calls, ServedClock(system)) as crew:
            yield crew
    finally:
        await calls.close()
        for lock in taken:
            lock.release()


def _calls(settings: Settings, endpoint: Endpoint) -> Calls | Transport:
    """Straight to the server, unless the environment names a proxy for what is not on this machine."""
    parts, environment = urlsplit(endpoint.url), settings.sources.environment
    names = {f"{parts.scheme}_proxy", "all_proxy"}
    if parts.hostname in _LOOPBACK or not any(
        value and key.lower() in names for key, value in environment.items()
    ):
        return Calls(endpoint)
    from overnight.client.transport import Transport  # noqa: PLC0415 -- it knows proxies, and weighs 5 MiB

    return Transport(endpoint)


@asynccontextmanager
async def _made(
    settings: Settings, endpoint: Endpoint, calls: Calls | Transport, clock: ServedClock
) -> AsyncIterator[Elsewhere]:
    async def post(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = await calls.request("POST", ROOT + path, json=body)
        except OvernightError as error:
            # No words of ours: a server that was just going down, or a proxy without one behind it.
            if isinstance(status := error.extra.get("status"), int) and status >= 500:
                raise Unreachable(error.detail) from None
            raise
        found = _document(response.content)
        if isinstance(now := found.get("now"), int):
            clock.heard(now)
        return found

    desk = RestLeaseDesk(post)
    sandbox = await confinement.confinement(settings, agents.home(settings))
    length = LeaseLength(partial(timing_of, settings.timing))
    made: list[RemoteUnitOfWork] = []

    def key_of(run_id: str) -> str:
        return made[0].agent_key(run_id)

    access = access_elsewhere(settings, endpoint, key_of)
    programs = list(
        agents.backends(
            settings, agents.spawner(settings), clock, sandbox, fence=length.keeper_deadline, access=access
        )
    )
    me = _row(settings, clock, agents.here(settings, sorted(program.name for program in programs)))
    length.begin((await _greeted(desk, me, clock)).lease_s)
    notifier = InprocNotifier()
    uow = RemoteUnitOfWork(desk, clock, notifier, me)
    made.append(uow)
    backends = Backends(programs, uow=uow, clock=clock, host_id=me.host_id)
    try:
        yield _crew(settings, desk, uow, notifier, clock, backends, me, length)
    finally:
        await backends.close()
        await uow.close()


def _crew(
    settings: Settings, desk: RestLeaseDesk, uow: RemoteUnitOfWork, notifier: InprocNotifier, clock: Clock,
    backends: Backends, me: WorkerRow, length: LeaseLength,
) -> Elsewhere:  # fmt: skip
    folders = Folders(settings.data_dir)
    conduct = Reported()
    fragments = Fragments(notifier, desk, clock, me, lambda run_id: uow.tokens().get(run_id))
    shop = Workshop(
        uow=uow, notifier=fragments, clock=clock, backends=backends,
        workspaces=DirectoryWorkspaces(
            roots=settings.workspace_roots, data_dir=settings.data_dir, run_folder=folders.run,
            home=agents.home(settings),
        ),
        folders=folders, policy=settings.runs, worker=me,
        timing=length.timing, conduct=conduct,
    )  # fmt: skip
    source = RemoteRunSource(desk, uow, clock, notifier, me, length, conduct)
    worker = Worker(shop, source, timing=lambda: length.timing)
    watch = Watch(desk, uow, clock, notifier, me, hungry=lambda: worker.busy < me.slots)
    preflights = Duty(name="preflights", every_s=600.0, once=backends.look)
    supervisor = Supervisor(shop, worker, source, (preflights,))
    return Elsewhere(shop=shop, supervisor=supervisor, watch=watch, fragments=fragments)


def timing_of(own: Timing, lease_s: float) -> Timing:
    """The clocks of a worker by the server's lease: agents are gone before another host may take their runs.

    Raises ConfigInvalid where the lease is too short for that.
    """
    slack_s = lease_s - own.grace_s - SWEEP_S - MARGIN_S
    if slack_s < LEAST_SLACK_S:
        raise ConfigInvalid(
            f"the server's leases of {lease_s:g} s are too short for a grace of {own.grace_s:g} s, "
            f"a sweep of {SWEEP_S:g} s and {MARGIN_S:g} s to spare",
            mend="make worker.grace_s here shorter, or worker.lease_s on the server longer",
        )
    return replace(own, lease_s=lease_s, renew_s=min(lease_s / 5, slack_s / RENEWALS), poll_s=POLL_S)


def _document(body: bytes) -> dict[str, Any]:
    """The answer. Raises Unreachable for what no server of ours says: a proxy's page, or half an answer."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unreachable("what answers there is no Overnight server")
    return found


def _row(settings: Settings, clock: Clock, names: tuple[str, ...]) -> WorkerRow:
    now = clock.wall_ms()
    return WorkerRow(
        pk=0, id=new_worker_id(now), host_id=hosts.own(settings.data_dir, clock), host_name=platform.node(),
        pid=os.getpid(), version=VERSION, slots=settings.slots, backends=settings.queue.offered(names),
        labels=settings.queue.labels, places=settings.queue.places, started_at=now, seen_at=now,
    )  # fmt: skip


async def _greeted(desk: RestLeaseDesk, me: WorkerRow, clock: ServedClock) -> Grant:
    """The server's first answer. Its refusals end the worker; that it is away does not."""
    rest = 0.1
    while True:
        try:
            greeting = await desk.grant(me, 0, "hello", ())
        except PASSING as error:
            log.warning("server.away", code=error.code, error=str(error))
            await clock.sleep(rest)
            rest = min(LONGEST_REST_S, rest * 2)
            continue
        return greeting


def _announce(worker: WorkerRow, endpoint: Endpoint) -> None:
    sys.stderr.write(f"Overnight {VERSION}: worker {worker.id} of {endpoint.url}\n")
    sys.stderr.write(f"offers {hosts.offered(worker)}\n")
    sys.stderr.flush()
    log.info("worker.started", worker=worker.id, host=worker.host_id, backends=list(worker.backends))
