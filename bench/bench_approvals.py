"""From a person's decision until the agent that waits in place has it, and goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from tests.e2e.harness import Server

from bench import stage
from bench.asking import Asker
from bench.bench_store import Bare, commit
from bench.figure import Figure
from overnight.testing.signals import wait_until

AGENT = Path(__file__).with_name("asking_agent.py")
COUNT, WARM = 320, 20
PARTS = (("p50", 0.5), ("p99", 0.99))


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    command = json.dumps([sys.executable, str(AGENT), str(COUNT)])
    config = f'[backends.asker]\nkind = "acp"\ncommand = {command}\n'
    with (
        stage.server(config=config) as server, stage.bare("echo") as (port, _), stage.folder() as folder,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child,
    ):  # fmt: skip
        work = server.workspace()
        body = {"mode": "oneshot", "approval_policy": "ask_all", "workspace": str(work)}
        run = server.submit("asker", **body)["id"]
        client, echo, bare = (
            Asker(server.port, stage.headers()),
            Asker(port),
            Bare(folder / "bare.db", commit),
        )
        ours, answered, least = [], [], []
        for number in range(COUNT):
            approval = _open(server, run)
            decided, done = _decide(client, approval)
            heard = _answer(work / "answers", number)
            if number >= WARM:
                ours.append((heard - decided) / 1e6)
                answered.append((done - decided) / 1e6)
                least.append(_bare(echo, bare, child))
        server.until(run, "completed")
    for name, part in PARTS:
        yield Figure(
            name=f"a decision until the agent goes on, {name}",
            value=stage.percentile(ours, part),
            unit="ms",
            limit=stage.percentile(least, part),
            limit_name="bare ASGI echo + one commit + a child's pipe",
            aim="≤ 100" if part > 0.5 else "",
        )
        yield Figure(
            name=f"a decision until it is answered, {name}", value=stage.percentile(answered, part), unit="ms"
        )


def _open(server: Server, run: str) -> dict[str, Any]:
    def look() -> list[dict[str, Any]]:
        found = server.http.get("/api/v1/approvals", params={"run_id": run, "state": "pending"}).json()
        return list(found["items"])

    return wait_until(look, within=20, every=0.002, what="the agent asks")[0]


def _decide(client: Asker, approval: dict[str, Any]) -> tuple[int, int]:
    """Wall nanoseconds before the request and after its answer."""
    body = {"option": "allow_once", "digest": approval["digest"]}
    begun = time.time_ns()
    answer = orjson.loads(client.post(f"/api/v1/approvals/{approval['id']}/resolve", body))
    if answer["state"] != "resolved":
        raise RuntimeError(str(answer))
    return begun, time.time_ns()


def _answer(answers: Path, number: int) -> int:
    """When the agent had that answer, by the same clock."""

    def look() -> list[str]:
        lines = answers.read_text(encoding="ascii").splitlines() if answers.exists() else []
        return lines[number:]

    return int(wait_until(look, within=20, every=0.001, what="the agent to go on")[0])


def _bare(echo: Asker, bare: Bare, child: subprocess.Popen[bytes]) -> float:
    """Milliseconds of a request, a row on the disk, and a line to another process and back."""
    assert child.stdin is not None
    assert child.stdout is not None
    begun = time.perf_counter()
    echo.post("/", {"option": "allow_once"})
    commit(bare.connection)
    child.stdin.write(b"allow_once\n")
    child.stdout.read(1)
    taken = 1000 * (time.perf_counter() - begun)
    child.stdout.read(len("llow_once\n"))
    return taken
