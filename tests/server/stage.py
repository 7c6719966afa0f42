"""A whole server on loopback over a real store, without workers: tests write the events themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from overnight.backends.echo.backend import EchoBackend
from overnight.clock import Clock, SystemClock
from overnight.domain.event import Draft, Recorded
from overnight.domain.run import Run
from overnight.domain.states import Input
from overnight.domain.token import AccessToken, TokenKind, digest, new_secret
from overnight.domain.values import Completion
from overnight.engine import moves
from overnight.engine.admission import Admission
from overnight.engine.approvals import ApprovalService
from overnight.engine.chat import Chat
from overnight.engine.control import Rules
from overnight.engine.diff import Diffs
from overnight.engine.directory import Backends
from overnight.engine.folders import Folders
from overnight.engine.follow import Follower
from overnight.engine.local_source import offer_of
from overnight.engine.model_account import ModelAccount
from overnight.engine.policy import RunPolicy, SessionPolicy, Storage, Timing
from overnight.engine.preview import Previewer
from overnight.engine.remote.service import Kept, LeaseService
from overnight.engine.service import RunService
from overnight.engine.sessions import SessionService
from overnight.engine.sharing import Sharing
from overnight.engine.turn_files import TurnFiles
from overnight.ids import RunId, new_host_id, new_token_id, new_worker_id
from overnight.ports.model import Models
from overnight.ports.unit_of_work import Transaction
from overnight.server.app import create_app
from overnight.server.leases import LeaseCalls
from overnight.server.metrics import Meters
from overnight.server.serve import Listen, serving
from overnight.server.services import ServerSettings, Services
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.workspaces.directories import DirectoryWorkspaces

OPERATORS_SECRET = "operators-own-value-9713"
HOST = new_host_id(1_790_000_000_000)
SERVER = new_worker_id(1_790_000_000_000)


@dataclass
class Stage:
    """What tests act on."""

    store: SqliteStore
    clock: Clock
    follower: Follower
    runs: RunService
    approvals: ApprovalService
    data_dir: Path
    work: Path
    port: int
    secret: str
    handovers: list[str]
    unready: list[str]
    meters: Meters
    clients: list[httpx2.AsyncClient] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, secret: str | None = "", **more: Any) -> httpx2.AsyncClient:
        """A client with the operator's token, another one, or none (None)."""
        headers = {} if secret is None else {"Authorization": f"Bearer {secret or self.secret}"}
        made = httpx2.AsyncClient(base_url=self.base, headers=headers, timeout=60, verify=False, **more)
        self.clients.append(made)
        return made

    async def token(
        self, *, owner: str = "usr_local", kind: TokenKind = "user", name: str = "t", **more: Any
    ) -> str:
        secret = new_secret()
        now = self.clock.wall_ms()
        token = AccessToken(
            pk=0, id=new_token_id(now), owner=owner, name=name, kind=kind, digest=digest(secret), created_at=now,
            **more,
        )  # fmt: skip
        await self.store.write(lambda tx: tx.tokens.add(token))
        return secret

    async def submitted(self, goal: str = "g", **spec: Any) -> Run:
        async with self.client() as http:
            answer = await http.post("/api/v1/runs", json={"goal": goal, "mode": "oneshot", **spec})
        assert answer.status_code == 202, answer.text
        return await self.store.read(lambda tx: tx.runs.get(RunId(answer.json()["id"]), "usr_local"))

    async def append(self, run: Run, *texts: str) -> tuple[Recorded, ...]:
        """Record one message per text, in one transaction."""
        drafts = [Draft(type="message.completed", data={"item_id": "m", "text": text}) for text in texts]
        return await self.store.write(lambda tx: tx.events.append(run.pk, drafts, self.clock.wall_ms()))

    async def finish(self, run: Run) -> None:
        """Let the run complete."""
        await self.store.write(lambda tx: _finish(tx, run, self.clock.wall_ms()))

    async def log(self, run: Run) -> tuple[Recorded, ...]:
        """The whole log as it is stored."""
        return await self.store.read(lambda tx: tx.events.after(run.pk, 0, 100_000))


def _finish(tx: Transaction, run: Run, now: int) -> None:
    claimed = tx.runs.save(tx.runs.lock(run.pk).moved(Input.CLAIM, now))
    moves.complete(tx, claimed, Completion(by="one_turn"), now)


@contextlib.asynccontextmanager
async def staged(
    root: Path, *, clock: Clock | None = None, models: Models | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    """A server that listens; everything is closed at the end."""
    clock = clock or SystemClock()
    notifier = InprocNotifier()
    store = SqliteStore(root / "data" / "overnight.db", clock, notifier, synchronous="NORMAL")
    await store.start()
    backends = Backends([EchoBackend(clock)], uow=store, clock=clock, host_id=HOST)
    folders, work = Folders(root / "data"), root / "work"
    work.mkdir()
    workspaces = DirectoryWorkspaces(
        roots=[work], data_dir=folders.data_dir, run_folder=folders.run, home=root / "home"
    )
    storage = Storage(data_dir=folders.data_dir)
    policy = RunPolicy(default_backend="echo", secrets={"KEY": OPERATORS_SECRET})
    rules = Rules(steer_how=backends.steer_how)
    runs = RunService(
        uow=store, clock=clock, storage=storage, host_id=HOST, free_bytes=lambda: 1 << 40,
        admission=Admission(policy=policy, backends=backends, workspaces=workspaces),
        previewer=Previewer(uow=store, workspaces=workspaces, backends=backends),
        rules=rules,
    )  # fmt: skip
    follower = Follower(store, notifier, poll_s=0.2)
    approvals = ApprovalService(uow=store, clock=clock, workspaces=workspaces, policy=policy, host_id=HOST)
    handovers: list[str] = []
    unready: list[str] = []

    async def ready() -> Sequence[str]:
        return tuple(unready)

    async def doctor() -> Mapping[str, object]:
        return {"status": "ok", "checks": []}

    kept = Kept(uow=store, notifier=notifier, clock=clock, policy=policy, timing=Timing(), offer=offer_of)
    services = Services(
        settings=ServerSettings(version="0.0.0", **settings), uow=store, notifier=notifier, clock=clock,
        follower=follower, server_id=SERVER, runs=runs, backends=backends,
        approvals=approvals,
        sessions=SessionService(uow=store, clock=clock, policy=policy, folders=folders),
        chat=Chat(uow=store, clock=clock, runs=runs, policy=policy, rules=rules),
        sharing=Sharing(uow=store, clock=clock), modes=policy.modes, session_policy=SessionPolicy(),
        diffs=Diffs(uow=store, workspaces=workspaces, policy=policy, host_id=HOST),
        turn_files=TurnFiles(uow=store, folders=folders, policy=policy, host_id=HOST),
        doctor=doctor, config=lambda: [{"name": "listen", "value": "127.0.0.1", "origin": "default"}],
        handover=lambda: handovers.append("now"), ready=ready,
        leases=LeaseCalls(LeaseService(kept), clock, policy, Timing()),
        models=models, model_account=ModelAccount(store, clock),
    )  # fmt: skip
    try:
        async with serving(
            create_app(services), Listen(port=0, grace_s=2), end_streams=follower.close
        ) as where:
            stage = Stage(
                store=store, clock=clock, follower=follower, runs=runs, approvals=approvals,
                data_dir=folders.data_dir, work=work, port=where.port, secret="",
                handovers=handovers, unready=unready, meters=services.meters,
            )  # fmt: skip
            stage.secret = await stage.token(name="operator")
            yield stage
            for client in stage.clients:
                await client.aclose()
    finally:
        follower.close()
        await backends.close()
        await store.close()


async def raw(port: int, head: bytes, *, read: int = 65536, within: float = 30.0) -> bytes:
    """Send exactly these bytes; what the server answers until it closes, stops or `read` bytes came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        writer.write(head)
        await writer.drain()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(within):
                while len(found) < read and (piece := await reader.read(read)):
                    found += piece
                    if b"\r\n\r\n" in found and _is_whole(found):
                        break
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return found


def _is_whole(found: bytes) -> bool:
    head, _, body = found.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))


@dataclass
class Frame:
    """One frame of a stream as a client sees it."""

    id: str | None = None
    event: str = "message"
    data: list[str] = field(default_factory=list)


def frames(body: bytes) -> list[Frame]:
    """The frames in `body`, comments left out; AssertionError for what no conforming server sends."""
    assert b"\r" not in body
    assert body.endswith(b"\n\n") or not body
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        frame = Frame()
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            match name:
                case "id":
                    frame.id = value
                case "event":
                    frame.event = value
                case "data":
                    frame.data.append(value)
                case _:
                    assert line.startswith(":"), line
        if frame.data:
            assert frame.id is not None, "a frame with data has an id"
            found.append(frame)
    return found
