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

LEASE_S, GRACE_S = 4.0, 0.2
"""Short, and long enough that an agent which nobody renews is gone in time: at the latest 0.8 s after a renewal."""


@dataclass
class Node(Server):
    """One process of the cluster."""

    command: str = "up"
    shared: Path = field(default_factory=Path)
    data_of: Path | None = None
    """The root of the node whose data directory this one uses too: the same host."""

    @property
    def data(self) -> Path:
        """The data directory."""
        return (self.data_of or self.root) / "data"

    def env(self) -> dict[str, str]:
        """The whole environment of the process."""
        found = super().env()
        return found | {
            "OVERNIGHT_WORKSPACE_ROOTS": f"{self.shared}:{self.root / 'work'}",
            "OVERNIGHT_SHARED_ROOTS": str(self.shared),
        }

    def start(self, *arguments: str, wait: bool = True) -> Node:
        """Start it and wait until it is up."""
        if self.command == "up":
            super().start(*arguments, wait=wait)
            return self
        with (self.root / "stdout").open("ab") as out, (self.root / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "overnight", "worker", *arguments],
                env=self.env(), cwd=self.root / "work", stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        if wait:
            offers = self.words().count("offers ")
            wait_until(lambda: self._up(offers), within=20, every=0.01, what="the worker offers something")
        return self

    def _up(self, before: int) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended with {self.process.returncode}: {self.words()}")
        return self.words().count("offers ") > before

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


class Cluster:
    """All nodes of one test. They know the same backends and one shared folder."""

    def __init__(self, root: Path, url: str, **environment: str) -> None:
        self.root = root
        self.shared = root / "shared"
        self.shared.mkdir()
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

    def node(self, name: str, command: str, **more: Any) -> Node:
        """A node that has not been started."""
        folder = self.root / name
        folder.mkdir()
        environment = {**self._environment, **more.pop("environment", {})}
        node = Node(
            root=folder, command=command, scripts=self.scripts, shared=self.shared, environment=environment, **more
        )  # fmt: skip
        self.nodes.append(node)
        return node

    def folder(self, name: str) -> Path:
        """A workspace that every host sees."""
        path = self.shared / name
        path.mkdir(exist_ok=True)
        return path

    def stop(self) -> None:
        """End everything, at once."""
        threads = [threading.Thread(target=node.stop) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


Start = Callable[..., Cluster]
