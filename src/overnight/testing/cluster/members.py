"""The cluster: its members, started in order, ended by their pids."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import orjson

from overnight.client.client import Client
from overnight.testing.cluster.clock import faked
from overnight.testing.cluster.databases import Postgres, Valkey
from overnight.testing.cluster.disks import SmallDisks
from overnight.testing.cluster.layout import TOKEN, Layout
from overnight.testing.cluster.links import Links
from overnight.testing.cluster.namespaces import Namespaces
from overnight.testing.cluster.programs import Program, kill_quietly, processes_of
from overnight.testing.services.ports import free_port
from overnight.testing.signals import eventually


@dataclass(kw_only=True)
class Member:
    """A server or a worker: a host of its own, with the links that it has to the databases."""

    name: str
    program: Program
    layout: Layout
    url: str | None = None
    """Of a server."""
    links: tuple[str, ...] = ()

    @property
    def host_id(self) -> str | None:
        """Who this host is in the database; None before its first start."""
        path = self.layout.root / self.name / "data" / "host.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(orjson.loads(path.read_bytes())["host_id"])
        return None

    async def start(self) -> None:
        """Start it; a server is waited for until it takes work."""
        self.program.start()
        await self.ready()

    async def ready(self, within: float = 120) -> None:
        """Wait until a server answers, or a worker has written that it is ready."""
        await eventually(self.is_ready, within=within, every=0.05, what=f"{self.name} is ready")

    async def is_ready(self) -> bool:
        """Whether it takes work. Raises AssertionError when it has ended."""
        assert self.program.running, f"{self.name} has ended: {self.program.words()}"
        if self.url is None:
            return self._said("worker.started")
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=2) as http:
                return (await http.get(f"{self.url}/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    def _said(self, words: str) -> bool:
        """Whether the present process has logged that."""
        path = self.layout.root / "log" / f"{self.name}.jsonl"
        if not path.exists():
            return False
        text = path.read_text(encoding="utf-8", errors="replace")
        return text.count(words) >= self.program.starts


class Cluster:
    """Everything together, as an asynchronous context manager. Ends only what it has started."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        log = layout.root / "log"
        self.postgres = (
            Postgres(layout.root / "postgres", log / "postgres.log") if layout.store == "postgres" else None
        )
        self.valkey = Valkey(layout.root / "valkey", log / "valkey.log") if layout.valkey else None
        self.links: Links | None = None
        self.disks = SmallDisks(layout.root, layout.small_disks)
        self.namespaces = Namespaces(layout.namespaces)
        self.servers: list[Member] = []
        self.workers: list[Member] = []
        self._ports: dict[str, int] = {}
        self.offsets: dict[str, Path] = {}
        """For each member that has a wall clock of its own: the file that moves it."""

    async def __aenter__(self) -> Self:
        self.layout.make()
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def members(self) -> list[Member]:
        """Servers and workers."""
        return [*self.servers, *self.workers]

    @property
    def urls(self) -> list[str]:
        """Of every server."""
        return [member.url for member in self.servers if member.url is not None]

    def member(self, name: str) -> Member:
        """By name, as `s1` or `w2`."""
        return next(member for member in self.members if member.name == name)

    async def close(self) -> None:
        """End every member, then whatever they have left, then the databases. Idempotent."""
        await asyncio.gather(*(member.program.stop() for member in self.members))
        for pid in processes_of(self.layout.root):
            if not self._is_database(pid):
                kill_quietly(pid)
        if self.links is not None:
            await self.links.close()
        for database in (self.valkey, self.postgres):
            if database is not None:
                await database.program.stop()
        self.disks.close()
        self.namespaces.close()

    def _is_database(self, pid: int) -> bool:
        """Postgres and its children end in order, at last."""
        own = [d.program.pid for d in (self.postgres, self.valkey) if d is not None and d.program.process]
        with contextlib.suppress(OSError, IndexError):
            with open(f"/proc/{pid}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
            return pid in own or parent in own
        return pid in own

    async def _start(self) -> None:
        layout = self.layout
        self.disks.mount()
        self.namespaces.make()
        self._ports = {name: free_port() for name in _names("s", layout.servers)}
        near = [*self._ports, *_names("w", layout.workers)]
        far = _names("r", layout.remote_workers)
        if self.valkey is not None:
            await self.valkey.start()
        if self.postgres is not None:
            await self.postgres.make()
        await self._start_links(near, far)
        for name in near:
            (self.servers if name in self._ports else self.workers).append(self._near(name))
        await self.servers[0].start()  # whoever comes first makes the tables
        self.workers += [self._member(name, await self._far(name)) for name in far]
        await asyncio.gather(*(member.start() for member in self.servers[1:]))
        await asyncio.gather(*(member.start() for member in self.workers))

    async def _start_links(self, near: Sequence[str], far: Sequence[str]) -> None:
        servers = list(self._ports.values())
        targets = {f"{name}-server": servers[index % len(servers)] for index, name in enumerate(far)}
        for database in ("postgres", "valkey"):
            found = self.postgres if database == "postgres" else self.valkey
            if found is not None:
                targets |= {f"{name}-{database}": found.port for name in near}
        if targets:
            hosts = {link: here for link in targets if (here := self._host_of(link)) is not None}
            self.links = Links(targets, hosts)
            await self.links.start(self.layout.root / "log" / "links.log")

    def _host_of(self, link: str) -> str | None:
        """Where a link listens for a member with a network of its own."""
        return self.namespaces.made.get(link.partition("-")[0])

    def _clock(self, name: str) -> dict[str, str]:
        """A wall clock of its own, for the members that the layout names, where that can be had."""
        if name not in self.layout.own_clocks:
            return {}
        offset = self.layout.root / "config" / f"{name}.clock"
        found = faked(offset)
        if found:
            self.offsets[name] = offset
        return found

    def _near(self, name: str) -> Member:
        """A server, or a worker on the database."""
        layout, port = self.layout, self._ports.get(name)
        database = redis = None
        if self.postgres is not None and self.links is not None:
            host, ports = self.namespaces.made.get(name, "127.0.0.1"), self.links.ports
            database = self.postgres.url_at(ports[f"{name}-postgres"], host)
            redis = self.valkey.url_at(ports[f"{name}-valkey"], host) if self.valkey is not None else None
        env = layout.environment(name, port, database, redis)
        if port is None:
            return self._member(name, (["worker"], env))
        carrying = [] if layout.store == "sqlite" else ["--no-worker"]
        return self._member(name, (["up", "--no-web", *carrying], env), f"http://127.0.0.1:{port}")

    async def _far(self, name: str) -> tuple[list[str], dict[str, str]]:
        """How a worker is started that knows nothing but a server and a token of its own."""
        assert self.links is not None
        async with Client(self.urls[0], TOKEN) as client:
            token = await client.new_token(name, kind="worker")
        env = self.layout.environment(name, None, None, None) | {"OVERNIGHT_TOKEN": str(token["secret"])}
        server = f"http://127.0.0.1:{self.links.ports[f'{name}-server']}"
        shared = {"OVERNIGHT_WORKER_SHARED_ROOTS": str(self.layout.shared)}
        return ["worker", "--server", server], env | shared

    def _member(self, name: str, started: tuple[list[str], dict[str, str]], url: str | None = None) -> Member:
        command, env = started
        program = Program(
            name=name,
            argv=[sys.executable, "-m", "overnight", *command],
            env=env | self._clock(name),
            cwd=self.layout.shared,
            wrapper=self.namespaces.wrapper(name),
            log=self.layout.root / "log" / f"{name}.out",
        )
        ports = self.links.ports if self.links is not None else {}
        links = tuple(link for link in ports if link.startswith(f"{name}-"))
        return Member(name=name, program=program, layout=self.layout, url=url, links=links)


def _names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(1, count + 1)]


__all__ = ["TOKEN", "Cluster", "Member"]
