"""Everything that carries out runs, and the duties beside it; nothing of a server, so that a worker stays small."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from overnight.backends.process.adoption import rouse
from overnight.compose import agents, confinement, hosts
from overnight.compose.agent_access import agent_access
from overnight.compose.ground import Ground
from overnight.config.settings import Settings
from overnight.domain.lease import keeper_deadline
from overnight.domain.worker import Worker as WorkerRow
from overnight.engine.conduct import Judged
from overnight.engine.directory import FRESH_MS, Backends
from overnight.engine.folders import Folders
from overnight.engine.local_source import LocalRunSource, offer_of
from overnight.engine.maintenance.disk import DiskWatch
from overnight.engine.maintenance.expirer import Expirer
from overnight.engine.maintenance.explainer import EVERY_S as EXPLAIN_EVERY_S
from overnight.engine.maintenance.explainer import Explainer
from overnight.engine.maintenance.heartbeat import Heartbeat
from overnight.engine.maintenance.leftovers import EVERY_S as LEFTOVERS_EVERY_S
from overnight.engine.maintenance.leftovers import Leftovers
from overnight.engine.maintenance.pruner import Pruner
from overnight.engine.maintenance.rescuer import Rescuer
from overnight.engine.maintenance.session_expirer import EVERY_S as SESSIONS_EVERY_S
from overnight.engine.maintenance.session_expirer import SessionExpirer
from overnight.engine.maintenance.silent_workers import SilentWorkers
from overnight.engine.maintenance.stale_connections import StaleConnections
from overnight.engine.offered import OfferedBackends
from overnight.engine.supervisor import Attendant, Duty, Supervisor
from overnight.engine.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.ids import HostId, new_worker_id
from overnight.ports.meter import Meter
from overnight.ports.sandbox import Sandbox
from overnight.version import VERSION
from overnight.workspaces.directories import DirectoryWorkspaces

STALE_BEATS: Final = 3
"""Heartbeats that a process misses before it counts as gone."""
LOOK_S: Final = 0.5
"""How often it is looked whether another host has lost a run: a take-over may take one lease and a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrying:
    """What carries out runs. Of a server that only serves, `worker` is None and the supervisor minds the duties."""

    shop: Workshop
    sandbox: Sandbox
    worker: Worker | None
    supervisor: Supervisor | Attendant

    @property
    def lease_age_s(self) -> float:
        """See `Worker.lease_age_s`."""
        return self.worker.lease_age_s if self.worker is not None else 0.0


async def carrying(settings: Settings, ground: Ground, meter: Meter, *, working: bool) -> Carrying:
    """Made and registered; not started. Raises StartRefused when this host works elsewhere already."""
    sandbox = await confinement.confinement(settings, agents.home(settings))
    shop = await _workshop(settings, ground, meter, sandbox, working=working)
    offer = partial(offer_of, limits=settings.queue.limits, lease_s=settings.timing.lease_s)
    source = LocalRunSource(ground.uow, ground.clock, shop.worker, offer=offer, alone=not settings.postgres)
    duties = tuple(_duties(settings, ground, shop))
    if settings.postgres and not working:
        attendant = Attendant(shop, source, (*duties, *_duties_of_server(settings, shop)))
        return Carrying(shop=shop, sandbox=sandbox, worker=None, supervisor=attendant)
    worker = Worker(shop, source)
    more = tuple(_duties_of_worker(settings, shop, worker))
    supervisor = Supervisor(shop, worker, source, (*duties, *more))
    return Carrying(shop=shop, sandbox=sandbox, worker=worker, supervisor=supervisor)


async def _workshop(
    settings: Settings, ground: Ground, meter: Meter, sandbox: Sandbox, *, working: bool
) -> Workshop:
    host = await hosts.host_id(settings, ground.uow, ground.clock)
    if working:
        stale_s = STALE_BEATS * settings.timing.heartbeat_s
        await hosts.announce(settings, ground.uow, host, ground.clock, stale_s)
    folders = Folders(settings.data_dir)
    # A server that only serves knows of its own machine nothing that counts.
    known = Backends if working or not settings.postgres else OfferedBackends
    access = await agent_access(settings, ground.uow)
    spawner = agents.spawner(settings)
    backends = known(
        agents.backends(settings, spawner, ground.clock, sandbox, fence=_fence(settings), access=access),
        uow=ground.uow,
        clock=ground.clock,
        host_id=host,
    )
    await backends.load()
    me = await _register(settings, ground, host, agents.here(settings, backends.names()) if working else ())
    return Workshop(
        uow=ground.uow,
        notifier=ground.notifier,
        clock=ground.clock,
        backends=backends,
        workspaces=DirectoryWorkspaces(
            roots=settings.workspace_roots,
            data_dir=settings.data_dir,
            run_folder=folders.run,
            home=agents.home(settings),
        ),
        folders=folders,
        policy=settings.runs,
        timing=settings.timing,
        worker=me,
        meter=meter,
        conduct=Judged(ground.uow, ground.clock, me, after=settings.queue.quarantine_after),
    )


async def _register(settings: Settings, ground: Ground, host: HostId, names: tuple[str, ...]) -> WorkerRow:
    now = ground.clock.wall_ms()
    row = WorkerRow(
        pk=0,
        id=new_worker_id(now),
        host_id=host,
        host_name=platform.node(),
        pid=os.getpid(),
        version=VERSION,
        slots=settings.slots if names else 0,
        backends=settings.queue.offered(names),
        labels=settings.queue.labels,
        places=settings.queue.places,
        started_at=now,
        seen_at=now,
    )
    after = settings.queue.quarantine_after if names else 0
    return await ground.uow.write(lambda tx: tx.workers.add(row, quarantine_after=after))


def _fence(settings: Settings) -> Callable[[float], float] | None:
    """Where another host may take a run over, its keeper has ended the agent before that."""
    if not settings.postgres:
        return None
    lease_s, grace_s = settings.timing.lease_s, settings.timing.grace_s
    return lambda held_until: keeper_deadline(held_until - lease_s, lease_s, grace_s)


def _duties(settings: Settings, ground: Ground, shop: Workshop) -> Iterator[Duty]:
    """What every process does, so that it is done whichever of them are up."""
    uow, clock, beat_s = ground.uow, ground.clock, settings.timing.heartbeat_s
    yield Duty(name="heartbeat", every_s=beat_s, once=Heartbeat(shop).once)
    yield Duty(name="expirer", every_s=settings.timing.poll_s, once=Expirer(uow, clock).once)
    sessions = SessionExpirer(uow, clock, settings.sessions, shop.folders)
    yield Duty(name="session expirer", every_s=SESSIONS_EVERY_S, once=sessions.once)
    pruner = Pruner(uow, clock, settings.storage, shop.worker.host_id)
    yield Duty(name="pruner", every_s=600.0, once=pruner.once)
    yield Duty(name="stale connections", every_s=60.0, once=StaleConnections(uow, clock).once)
    explainer = Explainer(uow, clock, stale_s=STALE_BEATS * beat_s, limits=settings.queue.limits)
    yield Duty(name="explainer", every_s=EXPLAIN_EVERY_S, once=explainer.once)
    yield Duty(name="disk", every_s=10.0, once=DiskWatch(ground.free_bytes, settings.storage).once)
    silent = SilentWorkers(shop, stale_s=STALE_BEATS * beat_s)
    yield Duty(name="silent workers", every_s=beat_s, once=silent.once)


def _duties_of_server(settings: Settings, shop: Workshop) -> Iterator[Duty]:
    """Where all workers are elsewhere, nobody else would notice that one is gone. Others that look are sooner."""
    yield Duty(
        name="rescuer", every_s=settings.timing.lease_s / 3, once=Rescuer(shop, None, rouse=rouse).once
    )


def _duties_of_worker(settings: Settings, shop: Workshop, worker: Worker) -> Iterator[Duty]:
    third_s = settings.timing.lease_s / 3
    look_s = min(third_s, LOOK_S) if settings.postgres else third_s
    yield Duty(name="rescuer", every_s=look_s, once=Rescuer(shop, worker, rouse=rouse).once)
    if settings.postgres:  # servers without a worker know of backends what workers have found
        yield Duty(name="leftovers", every_s=LEFTOVERS_EVERY_S, once=Leftovers(shop).once)
        yield Duty(name="preflights", every_s=FRESH_MS / 1000, once=shop.backends.look)
