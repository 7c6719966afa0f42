"""Servers and workers as real processes on one Postgres database, each with a data directory of its own: a host."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.harness import Server

from overnight.testing.signals import wait_until

LEASE_S, GRACE_S = 6.0, 0.2
"""Short, and long enough that an agent which nobody renews is gone in time: at the latest 2.8 s after a renewal."""


@dataclass
class Node(Server):
    """One process of the cluster."""

    command: str = "up"
    shared: Path = field(default_factory=Path)
    starts: int = 0
    data_of: Path | None = None
    """The root of the node whose data directory this one uses too: the same host."""

    @property
    def data(self) -> Path:
        """The data directory."""
        return (self.data_of or self.root) / "data"

    def env(self) -> dict[str, str]:
        """The whole environment of the process."""
        usual = {
            "OVERNIGHT_WORKSPACE_ROOTS": f"{self.shared}:{self.root / 'work'}",
            "OVERNIGHT_WORKER_SHARED_ROOTS": str(self.shared),
        }
        return super().env() | usual | dict(self.environment)

    def start(self, *arguments: str, wait: bool = True) -> Node:
        """Start it and wait until it is up."""
        self.starts += 1
        if self.command == "up":
            super().start(*arguments, wait=wait)
            return self
        with (self.root / "stdout").open("ab") as out, (self.root / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "overnight", "worker", *arguments],
                env=self.env(), cwd=self.root / "work", stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        if wait:
            self.wait_up()
        return self

    def wait_up(self) -> None:
        """Wait until it is up."""
        what = f"{self.root.name} is up"
        wait_until(self.ready if self.command == "up" else self._offers, within=90, every=0.01, what=what)

    def _offers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended with {self.process.returncode}: {self.words()}")
        return self.words().count("offers ") >= self.starts

    def log(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of that kind."""
        try:
            lines = (self.root / "server.log").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [found for line in lines if (found := json.loads(line)).get("event") == event]

    @property
    def host(self) -> str:
        """The id of its host."""
        return str(json.loads((self.data / "host.json").read_text(encoding="utf-8"))["host_id"])


@dataclass(frozen=True, kw_only=True)
class Life:
    """One agent, by its own record."""

    token: int
    pid: int
    cwd: Path
    began: float
    """Second of the boot clock."""
    last: float
    """When it was last seen alive."""

    @property
    def alive(self) -> bool:
        """Whether its process is there, and no zombie."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return False
        return state.rpartition(")")[2].split()[0] not in "ZX"


class Cluster:
    """All nodes of one test. They know the backend `busy` (see agent.py), other scripts, and one shared folder."""

    def __init__(self, root: Path, url: str, **environment: str) -> None:
        self.root = root
        self.url = url
        self.shared = root / "shared"
        self.control = root / "control"
        for folder in (self.shared, self.control):
            folder.mkdir()
        argv = [
            sys.executable,
            "-I",
            "-S",
            "-E",
            str(Path(__file__).with_name("agent.py")),
            str(self.control),
        ]
        self.config = f'[backends.busy]\nkind = "command"\ncommand = {json.dumps(argv)}\n'
        self.nodes: list[Node] = []
        self._environment = {
            "OVERNIGHT_DATABASE_URL": url,
            "OVERNIGHT_LEASE_S": str(LEASE_S),
            "OVERNIGHT_GRACE_S": str(GRACE_S),
            "OVERNIGHT_POLL_S": "0.5",
            "OVERNIGHT_BACKOFF_S": "0.1",
            **environment,
        }
        self.scripts: Mapping[str, Sequence[Any]] = {}

    def server(self, name: str, *arguments: str, **more: Any) -> Node:
        """A server without a worker, up."""
        return self.node(name, "up", **more).start("--no-worker", *arguments)

    def worker(self, name: str, *arguments: str, **more: Any) -> Node:
        """A worker, up."""
        return self.node(name, "worker", **more).start(*arguments)

    def crew(self, server: str, *workers: str) -> list[Node]:
        """A server without a worker, and workers, all started at once."""
        found = [self.node(server, "up"), *(self.node(name, "worker") for name in workers)]
        for node in found:
            node.start(*(["--no-worker"] if node.command == "up" else []), wait=False)
        for node in found:
            node.wait_up()
        return found

    def node(self, name: str, command: str, **more: Any) -> Node:
        """A node that has not been started."""
        folder = self.root / name
        folder.mkdir()
        environment = {**self._environment, **more.pop("environment", {})}
        node = Node(
            root=folder, command=command, scripts=self.scripts, shared=self.shared, environment=environment,
            config=self.config, **more,
        )  # fmt: skip
        self.nodes.append(node)
        return node

    def folder(self, name: str) -> Path:
        """A workspace that every host sees."""
        path = self.shared / name
        path.mkdir(exist_ok=True)
        return path

    def lives(self, run: str) -> list[Life]:
        """The agents of a run so far, in the order of their tokens."""
        found = []
        for path in self.control.glob(f"{run}.*"):
            if path.suffix[1:].isdigit():
                told = json.loads(path.read_text(encoding="utf-8"))
                last = path.with_name(path.name + ".last")
                seen = float(last.read_text(encoding="utf-8")) if last.exists() else told["began"]
                found.append(
                    Life(
                        token=int(path.suffix[1:]),
                        pid=told["pid"],
                        cwd=Path(told["cwd"]),
                        began=told["began"],
                        last=seen,
                    )
                )
        return sorted(found, key=lambda life: life.token)

    def living(self, run: str, count: int = 1, within: float = 60) -> list[Life]:
        """The agents of a run, once there were `count`."""
        return wait_until(
            lambda: found if len(found := self.lives(run)) >= count else [],
            within=within, every=0.01, what=f"{count} agents of {run}",
        )  # fmt: skip

    def enough(self, run: str) -> None:
        """Let the agents of a run come to their end."""
        (self.control / f"{run}.enough").touch()

    def lines(self, run: str, life: Life) -> int:
        """How many lines an agent has printed that came to its end."""
        return int((self.control / f"{run}.{life.token}.lines").read_text(encoding="utf-8"))

    def stop(self) -> None:
        """End everything, at once."""
        threads = [threading.Thread(target=node.stop) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


Start = Callable[..., Cluster]
