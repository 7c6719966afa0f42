"""One running Overnight: every part made once, started in order, ended in reverse."""

from __future__ import annotations

import os
import platform
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from overnight.backends.process.spawner_client import SpawnerClient
from overnight.clock import Clock, SystemClock
from overnight.compose import agents, confinement, health, keys
from overnight.config.paths import data_key, private_dir, runtime_dir, unmakable
from overnight.config.settings import Settings
from overnight.domain.worker import Worker as WorkerRow
from overnight.engine.admission import Admission
from overnight.engine.approvals import ApprovalService
from overnight.engine.chat import Chat
from overnight.engine.control import Rules
from overnight.engine.diff import Diffs
from overnight.engine.directory import Backends
from overnight.engine.doctor import Doctor
from overnight.engine.folders import Folders
from overnight.engine.follow import Follower
from overnight.engine.local_source import LocalRunSource
from overnight.engine.maintenance.disk import DiskWatch
from overnight.engine.maintenance.expirer import Expirer
from overnight.engine.maintenance.heartbeat import Heartbeat
from overnight.engine.maintenance.pruner import Pruner
from overnight.engine.maintenance.rescuer import Rescuer
from overnight.engine.maintenance.session_expirer import EVERY_S as SESSIONS_EVERY_S
from overnight.engine.maintenance.session_expirer import SessionExpirer
from overnight.engine.maintenance.stale_connections import StaleConnections
from overnight.engine.preview import Previewer
from overnight.engine.service import RunService
from overnight.engine.sessions import SessionService
from overnight.engine.sharing import Sharing
from overnight.engine.supervisor import Duty, Supervisor
from overnight.engine.turn_files import TurnFiles
from overnight.engine.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.ids import HostId, new_worker_id
from overnight.ports.sandbox import Sandbox
from overnight.server.metrics import Meters
from overnight.server.serve import Listen
from overnight.server.services import ServerSettings, Services
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.workspaces.directories import DirectoryWorkspaces

VERSION = version("overnight")
MOST_SPARE = 16 * 1024 * 1024
"""Bytes of the reserve that the database takes in advance, to go on with when the disk is full: an eighth, or this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the foreground needs of a running program."""

    store: SqliteStore
    clock: Clock
    service: RunService
    supervisor: Supervisor
    follower: Follower
    services: Services


@asynccontextmanager
async def running(settings: Settings, *, worker: bool, handover: Callable[[], None]) -> AsyncIterator[Parts]:
    """Make and start everything but the HTTP server. The supervisor is started and ended by the caller.

    Raises DataInUse, UnsafeDatabase, ConfigInvalid.
    """
    clock = SystemClock()
    notifier = InprocNotifier()
    store = SqliteStore(
        settings.database, clock, notifier, synchronous=settings.synchronous,
        spare_bytes=min(MOST_SPARE, settings.storage.reserve_bytes // 8),
    )  # fmt: skip
    try:
        Folders.make(settings.data_dir)
    except OSError as error:
        raise unmakable(settings.data_dir, error) from None
    await store.start()
    try:
        parts = await _assemble(settings, store, notifier, clock, worker=worker, handover=handover)
        try:
            yield parts
        finally:
            parts.follower.close()
            await parts.services.backends.close()
    finally:
        await store.close()


async def _assemble(
    settings: Settings, store: SqliteStore, notifier: InprocNotifier, clock: Clock, *,
    worker: bool, handover: Callable[[], None],
) -> Parts:  # fmt: skip
    meters = Meters()
    sandbox = await confinement.confinement(settings, _home(settings))
    shop = await _workshop(settings, store, notifier, clock, meters, sandbox, worker=worker)
    source = LocalRunSource(store, clock, shop.worker)
    carrier = Worker(shop, source)
    services = _services(settings, store, shop, carrier, meters, handover, sandbox)
    return Parts(
        store=store,
        clock=clock,
        service=services.runs,
        supervisor=Supervisor(shop, carrier, source, _duties(settings, store, shop, carrier)),
        follower=services.follower,
        services=services,
    )


async def _workshop(
    settings: Settings,
    store: SqliteStore,
    notifier: InprocNotifier,
    clock: Clock,
    meters: Meters,
    sandbox: Sandbox,
    *,
    worker: bool,
) -> Workshop:
    host = await keys.host_id(store, clock)
    folders = Folders(settings.data_dir)
    workspaces = DirectoryWorkspaces(
        roots=settings.workspace_roots,
        data_dir=settings.data_dir,
        run_folder=folders.run,
        home=_home(settings),
    )
    backends = Backends(
        agents.backends(settings, _spawner(settings), clock, sandbox), uow=store, clock=clock, host_id=host
    )
    await backends.load()
    return Workshop(
        uow=store,
        notifier=notifier,
        clock=clock,
        backends=backends,
        workspaces=workspaces,
        folders=folders,
        policy=settings.runs,
        timing=settings.timing,
        worker=await _register(settings, store, clock, host, backends.names() if worker else ()),
        meter=meters,
    )


def _services(
    settings: Settings, store: SqliteStore, shop: Workshop, carrier: Worker, meters: Meters,
    handover: Callable[[], None], sandbox: Sandbox,
) -> Services:  # fmt: skip
    rules = Rules(steer_how=shop.backends.steer_how, max_limits=settings.runs.max_limits)
    runs = RunService(
        uow=store,
        clock=shop.clock,
        admission=Admission(policy=settings.runs, backends=shop.backends, workspaces=shop.workspaces),
        previewer=Previewer(uow=store, workspaces=shop.workspaces, backends=shop.backends),
        rules=rules,
        storage=settings.storage,
        host_id=shop.worker.host_id,
        free_bytes=store.free_bytes,
    )
    return Services(
        settings=_server_settings(settings),
        uow=store,
        notifier=shop.notifier,
        clock=shop.clock,
        follower=Follower(store, shop.notifier, poll_s=settings.timing.poll_s),
        server_id=shop.worker.id,
        runs=runs,
        sessions=SessionService(uow=store, clock=shop.clock, policy=settings.runs, folders=shop.folders),
        chat=Chat(uow=store, clock=shop.clock, runs=runs, policy=settings.runs, rules=rules),
        sharing=Sharing(uow=store, clock=shop.clock),
        modes=settings.runs.modes,
        session_policy=settings.sessions,
        approvals=ApprovalService(
            uow=store,
            clock=shop.clock,
            workspaces=shop.workspaces,
            policy=settings.runs,
            host_id=shop.worker.host_id,
        ),
        backends=shop.backends,
        diffs=Diffs(uow=store, workspaces=shop.workspaces, policy=settings.runs),
        turn_files=TurnFiles(uow=store, folders=shop.folders, policy=settings.runs),
        doctor=Doctor(health.looks(settings, store, sandbox), shop.backends).report,
        config=lambda: list(settings.shown()),
        handover=handover,
        ready=health.readiness(runs, store),
        meters=meters,
        lease_age_s=lambda: carrier.lease_age_s,
    )


def listen(settings: Settings) -> Listen:
    """Where the HTTP server listens."""
    server = settings.server
    return Listen(
        host=server.host,
        port=server.port,
        tls_certificate=str(server.tls_certificate) if server.tls_certificate else None,
        tls_key=str(server.tls_key) if server.tls_key else None,
        trusted_proxies=("*",) if server.behind_proxy else (),
        grace_s=1.0,
    )


def _server_settings(settings: Settings) -> ServerSettings:
    server = settings.server
    return ServerSettings(
        version=VERSION,
        hosts=("127.0.0.1", "localhost", "[::1]", server.host.lower(), *server.allowed_hosts),
        secure=server.behind_proxy or server.tls_certificate is not None,
        keepalive_s=server.keepalive_s,
        max_connections=server.max_connections,
        max_connections_per_user=server.max_connections_per_user,
        worker_stale_s=3 * settings.timing.heartbeat_s,
    )


def _spawner(settings: Settings) -> SpawnerClient:
    runtime = private_dir(runtime_dir(settings.sources.environment) / data_key(settings.data_dir))
    library = settings.sources.environment.get("LD_LIBRARY_PATH")
    return SpawnerClient(
        settings.data_dir, runtime, environment={"LD_LIBRARY_PATH": library} if library else {}
    )


def _home(settings: Settings) -> Path:
    return Path(settings.sources.environment.get("HOME") or Path.home())


async def _register(
    settings: Settings, store: SqliteStore, clock: Clock, host: HostId, names: Sequence[str]
) -> WorkerRow:
    now = clock.wall_ms()
    row = WorkerRow(
        pk=0,
        id=new_worker_id(now),
        host_id=host,
        host_name=platform.node(),
        pid=os.getpid(),
        version=VERSION,
        slots=settings.slots if names else 0,
        backends=tuple(names),
        started_at=now,
        seen_at=now,
    )
    return await store.write(lambda tx: tx.workers.add(row))


def _duties(settings: Settings, store: SqliteStore, shop: Workshop, worker: Worker) -> Sequence[Duty]:
    storage, clock = settings.storage, shop.clock
    return (
        Duty(name="heartbeat", every_s=settings.timing.heartbeat_s, once=Heartbeat(shop).once),
        Duty(name="rescuer", every_s=settings.timing.lease_s / 3, once=Rescuer(shop, worker).once),
        Duty(name="expirer", every_s=settings.timing.poll_s, once=Expirer(store, clock).once),
        Duty(
            name="session expirer",
            every_s=SESSIONS_EVERY_S,
            once=SessionExpirer(store, clock, settings.sessions, shop.folders).once,
        ),
        Duty(name="pruner", every_s=600.0, once=Pruner(store, clock, storage).once),
        Duty(name="stale connections", every_s=60.0, once=StaleConnections(store, clock).once),
        Duty(name="disk", every_s=10.0, once=DiskWatch(store.free_bytes, storage).once),
    )
