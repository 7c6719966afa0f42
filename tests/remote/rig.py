"""The engine's rig with its worker elsewhere: everything that it does goes through the lease routes' own words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import orjson
from tests.engine.rig import HOST, Rig

from overnight.client.problems import error_of
from overnight.client.worker.conduct import Reported
from overnight.client.worker.desk import RestLeaseDesk
from overnight.client.worker.fragments import Fragments
from overnight.client.worker.length import LeaseLength
from overnight.client.worker.source import RemoteRunSource
from overnight.client.worker.unit_of_work import RemoteUnitOfWork
from overnight.client.worker.watch import Watch
from overnight.domain.event import canonical
from overnight.engine.remote.service import Kept, LeaseService
from overnight.engine.supervisor import Supervisor
from overnight.engine.waiting import end
from overnight.engine.worker import Worker
from overnight.errors import OvernightError, Unreachable
from overnight.ids import new_worker_id
from overnight.server.leases import LeaseCalls
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.wire import problem
from overnight.wire.v1 import lease_bodies as bodies

BODIES: Mapping[str, tuple[str, type[bodies.Loose]]] = {
    "": ("grant", bodies.OfferBody),
    "begin": ("succeed", bodies.SeatBody),
    "end": ("leave", bodies.Call),
    "renew": ("renew", bodies.RenewBody),
    "watch": ("watch", bodies.WatchBody),
    "show": ("show", bodies.ShowBody),
    "hand-over": ("hand_over", bodies.TokensBody),
}
OF_RUN: Mapping[str, tuple[str, type[bodies.Loose]]] = {
    "take": ("take", bodies.RenewOneBody),
    "look": ("look", bodies.Call),
    "renew": ("renew_one", bodies.RenewOneBody),
    "facts": ("facts", bodies.FactsBody),
    "events": ("events", bodies.EventsBody),
    "ack": ("ack", bodies.AckBody),
    "give-up": ("give_up", bodies.GiveUpBody),
}


@dataclass
class Line:
    """The way to the server, on which things can be lost. `fate` is asked for each call."""

    calls: LeaseCalls
    token_pk: int = 7
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cut: bool = False

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        document = orjson.loads(canonical(dict(body)))
        self.sent.append((path, document))
        return await self.deliver(path, document)

    async def deliver(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        if self.cut:
            raise Unreachable("the line is cut")
        return await self.ask(path, document)

    async def ask(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """What the server answers, as bytes and back."""
        parts = path.strip("/").split("/")
        try:
            if len(parts) == 1:
                name, kind = BODIES[parts[0]]
                found = await getattr(self.calls, name)(self.token_pk, kind.model_validate(document))
            else:
                name, kind = OF_RUN[parts[1]]
                found = await getattr(self.calls, name)(
                    self.token_pk, parts[0], kind.model_validate(document)
                )
        except OvernightError as error:
            raise error_of(error.status, orjson.dumps(problem.document(error))) from None
        return cast("dict[str, Any]", orjson.loads(orjson.dumps(found)))


@dataclass
class RemoteRig(Rig):
    """One server with one worker that has no database."""

    line_of: Any = Line
    quarantine_after: int = 0

    async def start(self, *, supervise: bool = True) -> RemoteRig:
        await super().start(supervise=False)
        row = self.shop.worker
        await self.store.write(lambda tx: tx.workers.set_state(row.id, "gone", 0))
        kept = Kept(
            uow=self.store, notifier=self.notifier, clock=self.clock, policy=self.policy, timing=self.timing,
            offer=partial(self.offer, lease_s=self.timing.lease_s), quarantine_after=self.quarantine_after,
        )  # fmt: skip
        self.leases = LeaseService(kept)
        self.line: Line = self.line_of(LeaseCalls(self.leases, self.clock, self.policy, self.timing))
        self.near = InprocNotifier()
        me = replace(row, pk=0, id=new_worker_id(self.clock.wall_ms()), host_id=HOST, pid=os.getpid())
        desk = RestLeaseDesk(self.line.post)
        self.uow = RemoteUnitOfWork(desk, self.clock, self.near, me)
        conduct = Reported()
        self.length = LeaseLength(lambda lease_s: replace(self.timing, lease_s=lease_s))
        self.length.begin(self.timing.lease_s)
        source = RemoteRunSource(desk, self.uow, self.clock, self.near, me, self.length, conduct)
        self.fragments = Fragments(
            self.near, desk, self.clock, me, lambda run_id: self.uow.tokens().get(run_id)
        )
        self.shop = replace(self.shop, uow=self.uow, notifier=self.fragments, worker=me, conduct=conduct)
        self.source = source  # type: ignore[assignment]
        self.worker = Worker(self.shop, source, timing=lambda: self.length.timing)
        self.supervisor = Supervisor(self.shop, self.worker, source)
        watch = Watch(desk, self.uow, self.clock, self.near, me, hungry=lambda: True)
        self.watching = asyncio.create_task(watch.follow(), name="watch")
        self.showing = asyncio.create_task(self.fragments.forward(), name="fragments")
        if supervise:
            await self.supervisor.start()
        return self

    async def close(self) -> None:
        await end(self.watching, self.showing)
        await self.uow.close()
        await super().close()


__all__ = ["Line", "RemoteRig"]
