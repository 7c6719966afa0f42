"""A real server and a real worker that reaches it over HTTP and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness import Server

from overnight.testing.signals import wait_until

MANY = 60
AGENT = """
import os, sys, time
sys.stdin.read()
for number in range({many}):
    print("line", number, flush=True)
    time.sleep({pause})
    while number == {many} // 2 and not os.path.exists({gate!r}): time.sleep(0.02)
"""


def agents(root: Path, *, many: int = MANY, pause: float = 0.02) -> str:
    """The configuration of both: one agent that prints lines, the second half of them once `root/gate` is there."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "agent.py"
    path.write_text(AGENT.format(many=many, pause=pause, gate=str(root / "gate")))
    return f'[backends.lines]\nkind = "command"\ncommand = [{sys.executable!r}, {str(path)!r}]\n'.replace(
        "'", '"'
    )


@dataclass
class FarWorker:
    """`overnight worker --server` on a data directory of its own."""

    server: Server
    root: Path
    process: subprocess.Popen[bytes] | None = None
    token: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> FarWorker:
        if not self.token:
            body = {"name": f"far-{self.root.name}", "kind": "worker"}
            self.token = self.server.http.post("/api/v1/tokens", json=body).json()["secret"]
        self.root.mkdir(exist_ok=True)
        environment = {
            **self.server.env(),
            "OVERNIGHT_DATA_DIR": str(self.root / "data"),
            "OVERNIGHT_TOKEN": self.token,
            "OVERNIGHT_LOG_FILE": str(self.root / "worker.log"),
            **self.environment,
        }
        with (self.root / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "overnight", "worker", "--server", f"http://127.0.0.1:{self.server.port}"],
                env=environment, cwd=self.root, stdin=subprocess.DEVNULL, stdout=err, stderr=err,
            )  # fmt: skip
        return self

    def up(self) -> FarWorker:
        """Wait until the server knows it."""
        wait_until(self.here, within=60, every=0.05, what="the worker is registered")
        return self

    def here(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "stderr").read_text()[-2000:]
        found = self.server.http.get("/api/v1/workers").json()["items"]
        return any(one["pid"] == self.process.pid and one["state"] == "active" for one in found)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def resident_kib(self, field: str = "VmRSS") -> int:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0])


def printed(server: Server, run_id: str) -> list[str]:
    """What the agent's lines became, in order."""
    text = "".join(event["data"]["text"] for event in server.events(run_id, "output.recorded"))
    return text.split("\n")[:-1]


EXPECTED = [f"line {number}" for number in range(MANY)]
