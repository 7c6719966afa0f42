"""Other servers of WebSockets against the one that the product uses: `python -m bench.socket_candidates [FOLDER]`.

Writes `NAME.json` for every candidate, which `bench.socket_gate` judges, and prints the table of decision 0018. About
two minutes. Baseline and candidate are measured in turns, so that whatever else the machine does meets both. A
candidate that cannot be installed or does not start is said, and left out.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from bench import stage
from bench.peers.install import PeersUnavailable, python
from bench.socket_clients import Client, echoes, text
from bench.socket_gate import Metrics, judged
from overnight.testing.services.ports import free_port
from overnight.testing.signals import wait_until

ROOT = Path(__file__).parents[1]
SERVERS = ROOT / "bench" / "peers" / "socket_servers.py"
BASELINE = "baseline"
OURS = "overnight"
"""The server as the product runs it, with its own protocol and transport around the baseline."""
CANDIDATES = (OURS, "wsproto", "aiohttp", "granian", "picows", "socketify")
PAYLOAD = b'{"text":"%b"}' % (b"x" * 289)
CLIENTS, FOR_S, ROUNDS, PIPELINED = 50, 1.0, 3, 8
CUT, ORDERED, GARBAGE = 300, 5000, 100
LEAK_ROUNDS, LEAK_CLIENTS, LEAK_MIB = 8, 200, 4.0
STALLED_S, STALLED_MIB = 2.0, 24.0
RESET = struct.pack("ii", 1, 0)


@dataclass
class Running:
    """A server that answers."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def memory(self) -> float:
        """MiB, of all its processes."""
        pids = [self.process.pid, *_children(self.process.pid)]
        return sum(stage.memory(pid) for pid in pids)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(one) for one in found]


@contextmanager
def running(interpreter: Path, name: str) -> Iterator[Running]:
    """Started, and killed at the end. Raises AssertionError when it does not answer."""
    port = free_port()
    argv, folder = [str(interpreter), SERVERS.name, name, str(port)], SERVERS.parent
    if name == OURS:
        argv, folder = [sys.executable, "-m", "bench.socket_servers", "door", str(port)], ROOT
    process = subprocess.Popen(
        argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        made = Running(name, port, process)
        wait_until(
            lambda: process.poll() is not None or _echoes(made), within=20, every=0.05, what=f"{name} answers"
        )
        if process.poll() is not None:
            raise AssertionError(f"{name} has ended by itself with {process.returncode}")
        yield made
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait()


def _echoes(server: Running, *, within: float = 5.0) -> bool:
    """Whether a new client is answered."""
    try:
        client = Client(server.port)
    except OSError:
        return False
    try:
        client.socket.settimeout(within)
        client.send(b"hello")
        return client.message() == b"hello"
    except OSError:
        return False
    finally:
        client.leave()


def fast(servers: tuple[Running, ...]) -> list[tuple[float, float]]:
    """p99 in milliseconds, one echo under way for each client; and echoes a second with eight; of each server."""
    late: list[list[float]] = [[] for _ in servers]
    many: list[list[float]] = [[] for _ in servers]
    for _ in range(ROUNDS):
        for at, server in enumerate(servers):
            found = echoes(server.port, clients=CLIENTS, seconds=FOR_S, payload=PAYLOAD)
            late[at].append(1000 * stage.percentile(found, 0.99))
            found = echoes(server.port, clients=CLIENTS, seconds=FOR_S, payload=PAYLOAD, at_once=PIPELINED)
            many[at].append(PIPELINED * len(found) / FOR_S)
    return [(min(one), max(other)) for one, other in zip(late, many, strict=True)]


def sound(server: Running) -> dict[str, float]:
    """The counts, and how many per cent of the clients came back after a cut.

    A check that a connection does not live through is a crash, and failed.
    """
    found: dict[str, float] = {"crash_count": 0}
    for name, check in CHECKS.items():
        try:
            value = float(check(server))
        except OSError:
            found["crash_count"] += 1
            value = 0.0 if name == "reconnect_success_rate" else 1.0
        found[name] = found.get(name, 0) + value
    return found


def _ordering(server: Running) -> int:
    """Messages that came back elsewhere than in their turn."""
    client = Client(server.port)
    wrong = 0
    for start in range(0, ORDERED, 100):
        client.socket.sendall(b"".join(text(b"%d" % number) for number in range(start, start + 100)))
        wrong += sum(client.message() != b"%d" % number for number in range(start, start + 100))
    client.leave()
    return wrong


def _reconnects(server: Running) -> float:
    """All are cut at once, in the middle of a frame, and come again at once."""
    clients = [Client(server.port) for _ in range(CUT)]
    for client in clients:
        client.socket.sendall(text(PAYLOAD)[:20])
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.leave()
    return 100 * sum(_echoes(server) for _ in range(CUT)) / CUT


def _stalled(server: Running) -> int:
    """Memory that grows for a client that does not read, and others that wait for it."""
    client = Client(server.port)
    client.send(b"hello")
    client.message()
    before = server.memory
    client.send(b"flood")
    end = time.monotonic() + STALLED_S
    failures = int(not _echoes(server))
    most = before
    while time.monotonic() < end:
        most = max(most, server.memory)
        time.sleep(0.1)
    client.leave()
    return failures + int(most - before > STALLED_MIB)


def _garbage(server: Running) -> int:
    """Times that it ended, or answered nobody any more, after bytes that are no frames."""
    chance = random.Random(1)
    for _ in range(GARBAGE):
        client = Client(server.port)
        with suppress(OSError):
            client.socket.sendall(text(b"\xff\xfe") + chance.randbytes(200))
        client.leave()
    return int(server.process.poll() is not None or not _echoes(server))


def _leak(server: Running) -> int:
    """Whether every round of connections leaves something behind."""
    weights = []
    for _ in range(LEAK_ROUNDS):
        for client in [Client(server.port) for _ in range(LEAK_CLIENTS)]:
            client.send(PAYLOAD)
            client.message()
            client.leave()
        time.sleep(0.2)
        weights.append(server.memory)
    return int(weights[-1] - weights[1] > LEAK_MIB)


CHECKS: Mapping[str, Callable[[Running], float]] = {
    "ordering_violations": _ordering,
    "reconnect_success_rate": _reconnects,
    "backpressure_failures": _stalled,
    "crash_count": _garbage,
    "leak_count": _leak,
}


def compared(interpreter: Path, name: str) -> tuple[Metrics, Metrics]:
    """Baseline and candidate, both measured now."""
    with running(interpreter, BASELINE) as base, running(interpreter, name) as other:
        (p99, rate), (others_p99, others_rate) = fast((base, other))
        return (
            Metrics(p99_latency_ms=p99, throughput_msgs_per_sec=rate, **sound(base)),
            Metrics(p99_latency_ms=others_p99, throughput_msgs_per_sec=others_rate, **sound(other)),
        )


def row(name: str, metrics: Metrics, verdict: str) -> str:
    """A line of the table."""
    return (
        f"| {name} | {metrics.p99_latency_ms:.2f} | {metrics.throughput_msgs_per_sec:,.0f} "
        f"| {metrics.reconnect_success_rate:.1f} | {metrics.crash_count:g} | {metrics.leak_count:g} "
        f"| {metrics.ordering_violations:g} | {metrics.backpressure_failures:g} | {verdict} |"
    )


def main(arguments: list[str]) -> int:
    """The exit status: 0 unless nothing could be measured at all."""
    folder = Path(arguments[0]) if arguments else Path("reports") / "sockets"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        interpreter = Path(os.environ.get("OVERNIGHT_SOCKET_PEERS") or python())
    except PeersUnavailable as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    print("| server | p99 ms | echoes/s | came back % | crashes | leaks | disorder | stalled | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in CANDIDATES:
        try:
            baseline, candidate = compared(interpreter, name)
        except (AssertionError, OSError) as error:
            print(f"| {name} | not measured: {error} | | | | | | | |", flush=True)
            continue
        document = {"baseline": asdict(baseline), "candidate": asdict(candidate)}
        (folder / f"{name}.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        against = judged(baseline, candidate)
        print(row("uvicorn websockets-sansio", baseline, "baseline"))
        print(row(name, candidate, "; ".join(against) or "GO"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
