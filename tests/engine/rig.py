"""A whole engine on real SQLite and real directories, with agents that are coroutines of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.engine.fake_backend import FakeBackend

from overnight.clock import Clock, SystemClock
from overnight.domain.approval import Approval
from overnight.domain.documents import checked
from overnight.domain.lease import DEFAULT_LEASE_S
from overnight.domain.queue_limits import NO_LIMITS, QueueLimits
from overnight.domain.request import SYSTEM, Principal, SteerHow
from overnight.domain.run import Run, Turn
from overnight.domain.spec import RunSpec
from overnight.domain.states import FINAL, State
from overnight.domain.values import Usage
from overnight.domain.worker import Offer
from overnight.domain.worker import Worker as WorkerRow
from overnight.engine.admission import Admission
from overnight.engine.approvals import ApprovalService, Resolve
from overnight.engine.chat import Chat
from overnight.engine.control import Control, Rules
from overnight.engine.directory import Backends
from overnight.engine.folders import Folders
from overnight.engine.local_source import LocalRunSource, offer_of
from overnight.engine.policy import RunPolicy, Storage, Timing
from overnight.engine.preview import Previewer
from overnight.engine.service import RunService
from overnight.engine.sessions import SessionService
from overnight.engine.supervisor import Supervisor
from overnight.engine.worker import Worker
from overnight.engine.workshop import Workshop
from overnight.ids import HostId, RunId, new_worker_id
from overnight.ports.backend import Backend
from overnight.ports.meter import Unmetered
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.signals import eventually
from overnight.workspaces.directories import DirectoryWorkspaces

HOST = HostId("hst_00000000000000000000000000")
ME = Principal(owner="usr_local", name="usr_local")
FAST = Timing(lease_s=30.0, renew_s=0.5, grace_s=1.0, poll_s=0.2, backoff_s=0.02)


class CountingMeter(Unmetered):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.turns: list[tuple[str, str, int]] = []
        self.writes: list[float] = []

    def turn_settled(self, backend: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        assert seconds >= 0
        self.turns.append((backend, outcome, usage.total if usage else 0))

    def written(self, seconds: float) -> None:
        self.writes.append(seconds)


@dataclass
class Rig:
    """One server. Another `Rig` on the same root is the next server of the same host."""

    root: Path
    backends: Sequence[Backend]
    clock: Clock = field(default_factory=SystemClock)
    timing: Timing = FAST
    policy: RunPolicy = field(default_factory=lambda: RunPolicy(default_backend="fake"))
    slots: int = 8
    limits: QueueLimits = NO_LIMITS
    open_store: Any = None
    """Opens another store than SQLite's."""
    store: SqliteStore = field(init=False)
    ended: bool = False
    meter: CountingMeter = field(default_factory=CountingMeter)

    async def start(self, *, supervise: bool = True) -> Rig:
        data = self.root / "data"
        data.mkdir(exist_ok=True)
        self.notifier = InprocNotifier()
        opened = self.open_store or partial(SqliteStore, data / "overnight.db", synchronous="NORMAL")
        self.store = opened(clock=self.clock, notifier=self.notifier)
        await self.store.start()
        folders = Folders(data)
        self.workspaces = DirectoryWorkspaces(
            roots=[self.root / "work"], data_dir=data, run_folder=folders.run, home=self.root / "home"
        )
        self.directory = Backends(self.backends, uow=self.store, clock=self.clock, host_id=HOST)
        rules = Rules(steer_how=self.directory.steer_how)
        self.service = RunService(
            uow=self.store, clock=self.clock,
            admission=Admission(policy=self.policy, backends=self.directory, workspaces=self.workspaces),
            previewer=Previewer(uow=self.store, workspaces=self.workspaces, backends=self.directory),
            rules=rules, storage=Storage(data_dir=data), host_id=HOST,
            free_bytes=lambda: 1 << 40,
        )  # fmt: skip
        self.sessions = SessionService(uow=self.store, clock=self.clock, policy=self.policy, folders=folders)
        self.chat = Chat(uow=self.store, clock=self.clock, runs=self.service, policy=self.policy, rules=rules)
        self.approvals = ApprovalService(
            uow=self.store, clock=self.clock, workspaces=self.workspaces, policy=self.policy, host_id=HOST
        )
        row = await self.store.write(lambda tx: tx.workers.add(self._row()))
        self.shop = Workshop(
            uow=self.store, notifier=self.notifier, clock=self.clock, backends=self.directory,
            workspaces=self.workspaces, folders=folders, policy=self.policy, timing=self.timing, worker=row,
            meter=self.meter,
        )  # fmt: skip
        self.source = LocalRunSource(self.store, self.clock, row, offer=self.offer)
        self.worker = Worker(self.shop, self.source)
        self.supervisor = Supervisor(self.shop, self.worker, self.source)
        if supervise:
            await self.supervisor.start()
        return self

    async def crash(self) -> None:
        """kill -9: nothing in order, nothing written; the agents live on."""
        for task in [*self.worker._tasks.values(), *self.worker._duties]:
            task.cancel()
        await asyncio.gather(*self.worker._tasks.values(), *self.worker._duties, return_exceptions=True)
        await self.close()

    async def close(self) -> None:
        self.ended = True
        await self.directory.close()
        await self.store.close()

    def workspace(self, name: str = "w") -> Path:
        path = self.root / "work" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    async def submit(self, goal: str = "do it", **body: Any) -> Run:
        if "workspace" not in body:
            body["workspace"] = str(self.workspace())
        elif body["workspace"] is None:
            del body["workspace"]
        run, _ = await self.service.submit(checked(RunSpec, {"goal": goal, **body}), ME)
        return run

    async def control(self, run: Run, action: Any, **more: Any) -> SteerHow | None:
        _, how = await self.service.control(run.id, Control(action=action, **more), ME)
        return how

    async def pending(self, run: Run, count: int = 1) -> list[Approval]:
        """The open approvals of a run, once there are `count`."""

        async def there() -> list[Approval] | None:
            found = await self.store.read(lambda tx: tx.approvals.pending(run.pk))
            return list(found) if len(found) >= count else None

        found = await eventually(there, what=f"{count} approvals of {run.id}")
        assert found is not None
        return found

    async def decide(self, approval: Approval, option: str, **more: Any) -> Approval:
        asked = Resolve(option=option, digest=more.pop("digest", approval.digest), **more)
        return await self.approvals.resolve(approval.id, asked, ME)

    async def run(self, run: Run) -> Run:
        return await self.store.read(lambda tx: tx.runs.get(RunId(run.id), None))

    async def until(self, run: Run, *states: State, within: float = 60.0) -> Run:
        wanted = states or tuple(FINAL)

        async def there() -> Run | None:
            found = await self.run(run)
            if found.final and found.state not in wanted:
                raise AssertionError(f"{found.state}: {found.error} {await self.types(run)}")
            return found if found.state in wanted else None

        found = await eventually(there, within=within, what=f"{run.id} in {wanted}")
        assert found is not None
        return found

    async def events(self, run: Run, *types: str) -> list[dict[str, Any]]:
        found = await self.store.read(lambda tx: tx.events.after(run.pk, 0, 100_000))
        parsed = [json.loads(event.body) for event in found]
        assert [event["seq"] for event in parsed] == list(range(1, len(parsed) + 1))
        return [event for event in parsed if not types or event["type"] in types]

    async def types(self, run: Run) -> list[str]:
        return [event["type"] for event in await self.events(run)]

    async def data(self, run: Run, type: str) -> list[dict[str, Any]]:
        return [event["data"] for event in await self.events(run, type)]

    async def turns(self, run: Run) -> tuple[Turn, ...]:
        return await self.store.read(lambda tx: tx.turns.page(run.pk))

    async def agent(self, backend: FakeBackend, count: int = 1) -> Any:
        """The `count`-th agent, once the engine knows that it works."""
        await eventually(lambda: len(backend.agents) >= count)
        return backend.agents[count - 1]

    def offer(self, worker: WorkerRow, free: int, *, lease_s: float = DEFAULT_LEASE_S) -> Offer:
        """What a worker offers here, within the limits."""
        return offer_of(worker, free, limits=self.limits, lease_s=lease_s)

    def _row(self) -> WorkerRow:
        now = self.clock.wall_ms()
        return WorkerRow(
            pk=0, id=new_worker_id(now), host_id=HOST, host_name="test", pid=1, version="0", slots=self.slots,
            backends=tuple(sorted(b.name for b in self.backends)), started_at=now, seen_at=now,
        )  # fmt: skip


__all__ = ["FAST", "HOST", "ME", "SYSTEM", "Rig"]
