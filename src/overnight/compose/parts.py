"""One running server: every part made once, started in order, ended in reverse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from overnight.clock import Clock, SystemClock
from overnight.compose import health
from overnight.compose.agent_access import agent_socket
from overnight.compose.carrying import STALE_BEATS, Carrying, carrying
from overnight.compose.ground import Ground, ground
from overnight.config.settings import Settings
from overnight.domain.placement import root_of
from overnight.engine.admission import Admission
from overnight.engine.approvals import ApprovalService
from overnight.engine.chat import Chat
from overnight.engine.control import Rules
from overnight.engine.diff import Diffs
from overnight.engine.doctor import Doctor
from overnight.engine.follow import Follower
from overnight.engine.local_source import offer_of
from overnight.engine.model_account import ModelAccount
from overnight.engine.preview import Previewer
from overnight.engine.remote.service import Kept, LeaseService
from overnight.engine.service import RunService
from overnight.engine.sessions import SessionService
from overnight.engine.sharing import Sharing
from overnight.engine.supervisor import Attendant, Supervisor
from overnight.engine.turn_files import TurnFiles
from overnight.engine.whereabouts import Whereabouts
from overnight.engine.workshop import Workshop
from overnight.ids import HostId
from overnight.models.configured import ConfiguredModels
from overnight.ports.unit_of_work import UnitOfWork
from overnight.server.leases import LeaseCalls
from overnight.server.metrics import Meters
from overnight.server.serve import Listen
from overnight.server.services import ServerSettings, Services
from overnight.version import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the foreground needs of a running program."""

    store: UnitOfWork
    clock: Clock
    host: HostId
    service: RunService
    supervisor: Supervisor | Attendant
    follower: Follower
    services: Services

    def end_waiting(self) -> None:
        """End the streams, and answer the workers that wait: the server goes down."""
        self.follower.close()
        self.services.leases.close()


@asynccontextmanager
async def running(settings: Settings, *, worker: bool, handover: Callable[[], None]) -> AsyncIterator[Parts]:
    """Make and start everything but the HTTP server. The supervisor is started and ended by the caller.

    Raises DataInUse, UnsafeDatabase, StartRefused, ConfigInvalid.
    """
    meters = Meters()
    async with ground(settings, SystemClock(), working=worker, meter=meters) as below:
        crew = await carrying(settings, below, meters, working=worker)
        models = ConfiguredModels(settings.models)
        services = _services(settings, below, crew, meters, handover, models)
        try:
            yield Parts(
                store=below.uow,
                clock=below.clock,
                host=crew.shop.worker.host_id,
                service=services.runs,
                supervisor=crew.supervisor,
                follower=services.follower,
                services=services,
            )
        finally:
            services.follower.close()
            await services.backends.close()
            await models.close()


def _services(
    settings: Settings,
    below: Ground,
    crew: Carrying,
    meters: Meters,
    handover: Callable[[], None],
    models: ConfiguredModels,
) -> Services:
    shop, store = crew.shop, below.uow
    rules = Rules(steer_how=shop.backends.steer_how, max_limits=settings.runs.max_limits)
    runs = RunService(
        uow=store,
        clock=shop.clock,
        admission=Admission(
            policy=settings.runs,
            backends=shop.backends,
            workspaces=shop.workspaces,
            whereabouts=_whereabouts(store, crew),
        ),
        previewer=Previewer(uow=store, workspaces=shop.workspaces, backends=shop.backends),
        rules=rules,
        storage=settings.storage,
        host_id=shop.worker.host_id,
        free_bytes=below.free_bytes,
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
        rules=settings.runs.rules,
        session_policy=settings.sessions,
        approvals=ApprovalService(
            uow=store,
            clock=shop.clock,
            workspaces=shop.workspaces,
            policy=settings.runs,
            host_id=shop.worker.host_id,
        ),
        leases=_leases(settings, store, shop),
        backends=shop.backends,
        diffs=Diffs(uow=store, workspaces=shop.workspaces, policy=settings.runs, host_id=shop.worker.host_id),
        turn_files=TurnFiles(
            uow=store, folders=shop.folders, policy=settings.runs, host_id=shop.worker.host_id
        ),
        doctor=Doctor(health.looks(settings, below, crew.sandbox), shop.backends).report,
        config=lambda: list(settings.shown()),
        handover=handover,
        ready=health.readiness(runs, store),
        models=models,
        model_account=ModelAccount(store, shop.clock),
        meters=meters,
        lease_age_s=lambda: crew.lease_age_s,
    )


def _leases(settings: Settings, store: UnitOfWork, shop: Workshop) -> LeaseCalls:
    timing = settings.timing
    kept = Kept(
        uow=store, notifier=shop.notifier, clock=shop.clock, policy=settings.runs, timing=timing,
        offer=partial(offer_of, limits=settings.queue.limits, lease_s=timing.lease_s),
        quarantine_after=settings.queue.quarantine_after,
    )  # fmt: skip
    return LeaseCalls(LeaseService(kept), shop.clock, settings.runs, timing)


def _whereabouts(store: UnitOfWork, crew: Carrying) -> Whereabouts:
    me = crew.shop.worker
    return Whereabouts(
        uow=store,
        host_id=me.host_id,
        shared_roots=[root for root in map(root_of, me.places) if root is not None],
        working=crew.worker is not None,
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
        unix=agent_socket(settings),
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
        worker_stale_s=STALE_BEATS * settings.timing.heartbeat_s,
    )
