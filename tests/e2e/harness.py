"""A real `overnight up` as a child process, and what tests ask of it over loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from overnight.testing.services.ports import free_port
from overnight.testing.signals import wait_until

TOKEN = "ovn_" + "t" * 43
SCRIPTED = Path(__file__).parents[2] / "src/overnight/testing/agents/scripted_agent.py"
FINAL = ("completed", "failed", "cancelled")


@dataclass
class Server:
    """One data directory with a server that can be started, killed and started again on the same port."""

    root: Path
    scripts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    subscribers: list[Subscriber] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("config", "work", "run", "home"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        lines = [self.config]
        for name, script in self.scripts.items():
            path = self.root / "config" / f"{name}.json"
            path.write_text(json.dumps(script), encoding="utf-8")
            state = self.root / "config" / f"{name}.turns"
            argv = [sys.executable, str(SCRIPTED), str(path), "--state", str(state)]
            lines.append(f'[backends.{name}]\nkind = "command"\ncommand = {json.dumps(argv)}\n')
        (self.root / "config" / "overnight.toml").write_text("\n".join(lines), encoding="utf-8")
        self.http = httpx2.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
        )

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    def env(self) -> dict[str, str]:
        """The whole environment of the server."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "OVERNIGHT_CONFIG": str(self.root / "config" / "overnight.toml"),
            "OVERNIGHT_DATA_DIR": str(self.data),
            "OVERNIGHT_LISTEN": f"127.0.0.1:{self.port}",
            "OVERNIGHT_TOKEN": TOKEN,
            "OVERNIGHT_WORKSPACE_ROOTS": str(self.root / "work"),
            "OVERNIGHT_LOG_FILE": str(self.root / "server.log"),
            # Scripted agents keep notes beside the configuration and tell the host's pids: tests/sandbox confines.
            "OVERNIGHT_SANDBOX_MODE": "off",
            **self.environment,
        }

    def start(self, *arguments: str, wait: bool = True) -> Server:
        """Start it and wait until it answers."""
        with (self.root / "stdout").open("ab") as out, (self.root / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "overnight", "up", *arguments],
                env=self.env(),
                cwd=self.root / "work",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        if wait:
            wait_until(self.ready, within=120, every=0.01, what="the server answers /readyz")
        return self

    def ready(self) -> bool:
        """Whether /readyz answers 200; AssertionError when the process has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}: {self.words()}")
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def words(self) -> str:
        """The end of what the server printed."""
        return (self.root / "stderr").read_text(encoding="utf-8", errors="replace")[-3000:]

    def send(self, number: signal.Signals) -> None:
        """A signal to the server's process alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, within: float = 60) -> int:
        """The exit status."""
        assert self.process is not None
        return self.process.wait(within)

    def stop(self) -> None:
        """End whatever is left: the server, those who follow it, and the agents that a killed one left behind."""
        for subscriber in self.subscribers:
            subscriber.ended.set()
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        self.http.close()
        for pid in self.descendants():
            kill_quietly(pid)

    def descendants(self) -> list[int]:
        """Every process, spawner and keepers included, whose arguments, environment or folder name this root."""
        needle, found = str(self.root).encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                texts = [_read(entry / "cmdline"), _read(entry / "environ"), _link(entry / "cwd")]
                if any(needle in text for text in texts):
                    found.append(int(entry.name))
        return found

    def workspace(self, name: str = "w") -> Path:
        """A workspace of that name, made if it is not there."""
        path = self.root / "work" / name
        path.mkdir(exist_ok=True)
        return path

    def submit(self, backend: str, **body: Any) -> dict[str, Any]:
        """POST /runs; the run."""
        body.setdefault("goal", "do it")
        answer = self.http.post("/api/v1/runs", json={"backend": backend, **body})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def run(self, run_id: str) -> dict[str, Any]:
        """GET /runs/{id}."""
        answer = self.http.get(f"/api/v1/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def control(self, run_id: str, action: str, **body: Any) -> httpx2.Response:
        """POST /runs/{id}/control."""
        return self.http.post(f"/api/v1/runs/{run_id}/control", json={"action": action, **body})

    def until(self, run_id: str, *states: str, within: float = 90) -> dict[str, Any]:
        """The run once it is in one of `states` (default: any final one)."""
        wanted = states or FINAL

        def there() -> dict[str, Any] | None:
            run = self.run(run_id)
            if run["state"] in FINAL and run["state"] not in wanted:
                raise AssertionError(f"{run['state']} instead of {wanted}: {run}")
            return run if run["state"] in wanted else None

        found = wait_until(there, within=within, every=0.02, what=f"{run_id} is {'/'.join(wanted)}")
        assert found is not None
        return found

    def events(self, run_id: str, *types: str) -> list[dict[str, Any]]:
        """The whole log (of those types), page by page."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            query: dict[str, str | int] = {
                "after": after,
                "limit": 1000,
                **({"types": ",".join(types)} if types else {}),
            }
            page = self.http.get(f"/api/v1/runs/{run_id}/events", params=query).json()["items"]
            if not page:
                return found
            found += page
            after = page[-1]["seq"]

    def seen(self, run_id: str, type: str, count: int = 1, within: float = 60) -> list[dict[str, Any]]:
        """The events of that type, once there are `count`."""
        return wait_until(
            lambda: found if len(found := self.events(run_id, type)) >= count else [],
            within=within, every=0.02, what=f"{count} x {type}",
        )  # fmt: skip

    def printed(self, run_id: str) -> str:
        """All recorded stdout text of the run."""
        events = self.events(run_id, "output.recorded")
        return "".join(event["data"]["text"] for event in events if event["data"]["stream"] == "stdout")


class Subscriber(threading.Thread):
    """Follows a stream over every cut, with its cursor, and keeps the raw data lines it was given."""

    def __init__(self, server: Server, path: str) -> None:
        super().__init__(daemon=True)
        self.server, self.path = server, path
        self.frames: list[tuple[int, str]] = []
        self.ended = threading.Event()
        self.connections = 0
        server.subscribers.append(self)
        self.start()

    def run(self) -> None:
        """Read until `[DONE]`; reconnect after every cut."""
        while not self.ended.is_set():
            headers = {"Authorization": f"Bearer {TOKEN}"}
            if self.frames:
                headers["Last-Event-ID"] = str(self.frames[-1][0])
            try:
                url = f"http://127.0.0.1:{self.server.port}{self.path}"
                with httpx2.stream("GET", url, headers=headers, timeout=60) as answer:
                    self.connections += 1
                    if answer.status_code == 204:
                        self.ended.set()
                    elif answer.status_code == 200:
                        self._read(answer.iter_lines())
                    else:
                        self.ended.wait(0.02)
            except httpx2.TransportError:
                self.ended.wait(0.02)

    def _read(self, lines: Iterable[str]) -> None:
        seq, data = 0, ""
        for line in lines:
            if self.ended.is_set():
                return
            if line.startswith("id: "):
                seq = int(line[4:])
            elif line.startswith("data: "):
                data = line[6:]
            elif not line and data:
                if data == "[DONE]":
                    self.ended.set()
                    return
                self.frames.append((seq, data))
                data = ""

    def events(self, within: float = 60) -> list[dict[str, Any]]:
        """Everything, once the stream has ended."""
        assert self.ended.wait(within), f"no end of the stream; last {self.frames[-1:]}"
        return [json.loads(data) for _, data in self.frames]


def written(work: Path, *names: str) -> list[str]:
    """What an agent's processes write into these files, once each of them has."""
    found = [work / name for name in names]
    wait_until(
        lambda: all(path.exists() and path.stat().st_size for path in found), what=f"{names} to be written"
    )
    return [path.read_text(encoding="utf-8") for path in found]


def let_pass(seconds: float) -> None:
    """Let real time pass where real time is what is tested: a random instant, or a lease of a stopped process."""
    threading.Event().wait(seconds)


def kill_quietly(pid: int) -> None:
    """kill -9, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def gap_free(events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether seq runs from 1 without holes or repeats."""
    return [event["seq"] for event in events] == list(range(1, len(events) + 1))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> bytes:
    try:
        return os.fsencode(os.readlink(path))
    except OSError:
        return b""
