"""A real server in a process of its own for a benchmark, and how much of the machine a process takes."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import TOKEN, Server

from overnight.testing.services.ports import free_port
from overnight.testing.signals import wait_until

FLOOD = Path(__file__).with_name("flood_agent.py")
CROWDED = {"OVERNIGHT_MAX_CONNECTIONS_PER_USER": "1000"}
"""All readers of a benchmark are one user."""
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on a disk (`/tmp` may be memory, and agents refuse to live there).

    Removed when the program ends: an ext4 without a journal looks past every inode that was freed in the last minute,
    so removing what one benchmark has left would make each file of the next one several times as dear.
    """
    found = Path(tempfile.mkdtemp(prefix="overnight-bench-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, found, ignore_errors=True)
    yield found


@contextmanager
def server(
    *arguments: str, config: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that is up; ended with everything that it left."""
    with folder() as root:
        made = Server(root=root, config=config, environment={**CROWDED, **(environment or {})})
        try:
            yield made.start(*arguments)
        finally:
            made.stop()


@contextmanager
def child(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program beside us, killed afterwards."""
    process = subprocess.Popen([sys.executable, *argv], cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def bare(name: str) -> Iterator[tuple[int, int]]:
    """One of `bench.bare`'s servers; its port and process id."""
    port = free_port()
    with child("-m", "bench.bare", name, str(port)) as process:
        wait_until(lambda: answers(port), within=20, every=0.01, what=f"the bare {name} server answers")
        yield port, process.pid


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def flood_config() -> str:
    """A Codex that is none: it prints as many messages as its prompt says (`flood_agent.py`)."""
    provider = 'model_providers.none={name="none",base_url="http://127.0.0.1:9",wire_api="responses"}'
    args = ["-c", "model_provider=none", "-c", provider]
    listed = ", ".join(f"'{part}'" for part in args)
    return f'[backends.codex]\nprogram = "{FLOOD}"\nargs = [{listed}]\n'


def headers() -> Mapping[str, str]:
    """What lets a client in."""
    return {"Authorization": f"Bearer {TOKEN}"}


def memory(pid: int, field: str = "Rss") -> float:
    """MiB of a process: `Rss`, or `Pss`, where what is shared is counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def timed(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of a command."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which that part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
