"""Servers and workers as processes of their own upon one Postgres, which they reach without any proxy."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness import Server

from bench import stage
from bench.shared import Databases
from overnight.testing.signals import wait_until


@dataclass(kw_only=True)
class Apart:
    """What runs. `environment` is everybody's."""

    root: Path
    environment: Mapping[str, str]
    config: str = ""
    servers: list[Server] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def server(self) -> Server:
        """One more server, which carries out nothing itself."""
        root = self.root / f"s{len(self.servers)}"
        root.mkdir(mode=0o700)
        made = Server(root=root, environment=self.environment, config=self.config)
        self.servers.append(made)
        return made.start("--no-worker", "--no-web")

    def worker(self, *arguments: str, data: str | None = None) -> subprocess.Popen[bytes]:
        """One more worker; `data` names the data directory, by which a later worker follows an earlier one."""
        name = data or f"w{len(self.workers)}"
        root = self.root / name
        for part in ("run", "home"):
            (root / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        env = {**self.servers[0].env(), "HOME": str(root / "home"), "XDG_RUNTIME_DIR": str(root / "run")}
        env |= {"OVERNIGHT_DATA_DIR": str(root / "data"), "OVERNIGHT_LOG_FILE": str(root / "log")}
        argv = [sys.executable, "-m", "overnight", "worker", *arguments]
        with (root / "out").open("ab") as out:
            process = subprocess.Popen(
                argv, env=env, cwd=root, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        self.workers.append(process)
        return process

    def ready(self, workers: int) -> None:
        """Wait until so many workers can be seen to work."""

        def there() -> bool:
            for process in self.workers:
                if process.poll() is not None:
                    raise AssertionError(f"a worker has ended with {process.returncode}")
            return len(self.active()) >= workers

        wait_until(there, within=30, every=0.02, what=f"{workers} workers are there")

    def active(self) -> list[str]:
        """The ids of the workers that claim."""
        items = self.servers[0].http.get("/api/v1/workers").json()["items"]
        return [row["id"] for row in items if row["state"] == "active" and row["slots"]]

    def counts(self) -> Mapping[str, int]:
        """Runs by state."""
        return dict(self.servers[0].http.get("/api/v1/stats").json()["runs"])

    def close(self) -> None:
        """End everything."""
        for process in self.workers:
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + 10
        for process in self.workers:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for server in self.servers:
            server.stop()


@contextmanager
def apart(
    found: Databases,
    *,
    servers: int = 1,
    redis: bool = False,
    config: str = "",
    more: Mapping[str, str] | None = None,
) -> Iterator[Apart]:
    """The servers, on a new database; workers are started by the caller."""
    environment = {**stage.CROWDED, "OVERNIGHT_DATABASE_URL": found.fresh(), **(more or {})}
    if redis:
        assert found.redis is not None
        environment["OVERNIGHT_REDIS_URL"] = found.redis
    with ExitStack() as stack:
        root = stack.enter_context(stage.folder())
        made = Apart(root=root, environment=environment, config=config)
        stack.callback(made.close)
        for _ in range(servers):
            made.server()
        yield made
