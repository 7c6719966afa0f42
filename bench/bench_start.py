"""How long until it answers, and what it weighs while nobody wants anything."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.harness import Server

from bench import stage
from bench.figure import Figure
from bench.readers import Readers
from overnight.testing.services.ports import free_port
from overnight.testing.signals import wait_until

ROUNDS = 5
IDLE_CLIENTS = 500
COMMAND = str(Path(sys.executable).with_name("overnight"))


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    yield from _help()
    yield from _cold_start()
    yield from _idle_clients()


def _help() -> Iterator[Figure]:
    environment = dict(os.environ)
    ours, least = [], []
    for _ in range(2 * ROUNDS):
        ours.append(stage.timed([COMMAND, "--help"], environment))
        least.append(stage.timed([sys.executable, "-c", "import typer"], environment))
    for name, part in (("wall", 0), ("processor", 1)):
        yield Figure(
            name=f"overnight --help, {name}",
            value=1000 * statistics.median(one[part] for one in ours),
            unit="ms",
            limit=1000 * statistics.median(one[part] for one in least),
            limit_name="python -c 'import typer'",
            aim="≤ 150" if name == "wall" else "",
        )


def _cold_start() -> Iterator[Figure]:
    """In turns, so that both see the same machine."""
    ours: list[tuple[float, float, float]] = []
    least: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        least.append(_first_answer_of_bare())
        ours.append(_first_answer())
    for name, part in (("wall", 0), ("processor", 1)):
        yield Figure(
            name=f"overnight up to the first 200, {name}",
            value=statistics.median(one[part] for one in ours),
            unit="s",
            limit=statistics.median(one[part] for one in least),
            limit_name="bare FastAPI + SQLAlchemy + uvicorn",
            aim="≤ 1" if name == "wall" else "",
        )
    yield Figure(
        name="memory of an idle server",
        value=statistics.median(one[2] for one in ours),
        unit="MiB",
        limit=statistics.median(one[2] for one in least),
        limit_name="bare FastAPI + SQLAlchemy + uvicorn",
        aim="≤ 90",
    )


def _first_answer() -> tuple[float, float, float]:
    with stage.folder() as root:
        made = Server(root=root)
        try:
            begun = time.perf_counter()
            made.start()
            process = made.process
            assert process is not None
            wall = time.perf_counter() - begun
            return wall, stage.cpu(process.pid), stage.memory(process.pid)
        finally:
            made.stop()


def _first_answer_of_bare() -> tuple[float, float, float]:
    port = free_port()
    begun = time.perf_counter()
    process: subprocess.Popen[bytes]
    with stage.child("-m", "bench.bare", "start", str(port)) as process:
        wait_until(lambda: _is_200(port), within=20, every=0.01, what="the bare server answers")
        wall = time.perf_counter() - begun
        return wall, stage.cpu(process.pid), stage.memory(process.pid)


def _is_200(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port)) as asked:
            asked.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return asked.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _idle_clients() -> Iterator[Figure]:
    """Process memory for each client that follows and hears nothing."""
    path, headers = "/api/v1/stream", stage.headers()
    with stage.server(environment={"OVERNIGHT_KEEPALIVE_S": "300"}) as server, stage.bare("quiet") as bare:
        assert server.process is not None
        warm = Readers(20, server.port, path, headers)
        warm.heads()
        ours = _growth(server.process.pid, server.port, path)
        warm.close()
        least = _growth(bare[1], bare[0], path)
    yield Figure(
        name=f"memory for each of {IDLE_CLIENTS} idle SSE clients",
        value=ours,
        unit="KiB",
        limit=least,
        limit_name="bare raw ASGI",
        aim="≤ 15",
    )


def _growth(pid: int, port: int, path: str) -> float:
    before = stage.memory(pid)
    readers = Readers(IDLE_CLIENTS, port, path, stage.headers())
    readers.heads()
    after = stage.memory(pid)
    readers.close()
    return (after - before) * 1024 / IDLE_CLIENTS
