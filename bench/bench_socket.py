"""The socket: echoes and fan-out beside a bare server, and what an idle one weighs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.socket.autobahn import COMPRESSION, TOO_LONG, judged

from bench import stage
from bench.figure import Figure
from bench.socket_clients import Client, at_once, echoes
from bench.socket_servers import EVENTS
from overnight.testing.services.ports import free_port
from overnight.testing.signals import wait_until

PAYLOAD = b'{"text":"%b"}' % (b"x" * 289)
CLIENTS, FOR_S, ROUNDS = 50, 0.5, 8
FANS = 3
SUBSCRIBERS = 20
IDLE, WARM = 1000, 50
HELLO = b'{"v":1,"type":"hello","scope":"conn","id":"h","seq":1,"ts":1,"payload":{"versions":[1]}}'
SUBSCRIBE = (
    b'{"v":1,"type":"run.subscribe","scope":"run:x","id":"s","seq":1,"ts":1,'
    b'"payload":{"run":"x","after":%d,"flow":{"window":1000000}}}'
)
LAST = b'"type":"run.end"'
PATH = "/api/v1/socket"


def figures(*, long: bool) -> Iterator[Figure]:
    yield from _echo()
    yield from _fan()
    yield from _idle()
    if long:
        yield from _cases()


@contextmanager
def server(name: str) -> Iterator[tuple[int, int]]:
    """One of `bench.socket_servers`; its port and process id."""
    port = free_port()
    with stage.child("-m", "bench.socket_servers", name, str(port)) as process:
        wait_until(lambda: stage.answers(port), within=20, every=0.01, what=f"the {name} server answers")
        yield port, process.pid


def _echo() -> Iterator[Figure]:
    """In turns, so that whatever else the machine does meets both."""
    found: dict[str, list[tuple[float, float, float]]] = {"bare": [], "door": []}
    with server("bare") as bare, server("door") as door:
        for _ in range(ROUNDS):
            for name, (port, pid) in (("bare", bare), ("door", door)):
                found[name].append(_round(port, pid))
    rates, late, spent = zip(
        *((max(rate), min(late), statistics.median(spent)) for rate, late, spent in _columns(found)),
        strict=True,
    )
    yield _beside_bare(f"echoes of 300 bytes, {CLIENTS} sockets", rates, "/s", "≥ 0.9 ×")
    yield _beside_bare("the same for each second of processor time", spent, "/s", "≥ 0.9 ×")
    yield _beside_bare("the same, p99", late, "ms", "")


def _round(port: int, pid: int) -> tuple[float, float, float]:
    """Echoes a second, p99 in milliseconds, echoes for each second of the server's processor time."""
    before = stage.cpu(pid)
    found = echoes(port, clients=CLIENTS, seconds=FOR_S, payload=PAYLOAD)
    spent = stage.cpu(pid) - before
    return len(found) / FOR_S, 1000 * stage.percentile(found, 0.99), len(found) / max(spent, 0.01)


def _columns(
    found: dict[str, list[tuple[float, float, float]]],
) -> Iterator[tuple[list[float], list[float], list[float]]]:
    for rounds in found.values():
        rate, late, spent = zip(*rounds, strict=True)
        yield list(rate), list(late), list(spent)


def _beside_bare(name: str, values: Sequence[float], unit: str, aim: str) -> Figure:
    bare, ours = values
    return Figure(name=name, value=ours, unit=unit, limit=bare, limit_name="a bare ASGI echo", aim=aim)


def _fan() -> Iterator[Figure]:
    with server("fan") as (port, _):
        batched = max(_deliveries(port, single=False) for _ in range(FANS))
        single = _deliveries(port, single=True)
    yield Figure(
        name=f"events of one log to {SUBSCRIBERS} subscribers, batched", value=batched, unit="/s",
        limit=single, limit_name="one frame for each event", aim="≥ 5 ×",
    )  # fmt: skip


def _deliveries(port: int, *, single: bool) -> float:
    """Events a second, of all subscribers together."""

    def subscribed(client: Client) -> None:
        client.send(SUBSCRIBE % (1 if single else 0))
        client.until(LAST)

    path = f"{PATH}?single" if single else PATH
    clients = at_once(SUBSCRIBERS, port, path, {}, HELLO)
    begun = time.perf_counter()
    with ThreadPoolExecutor(SUBSCRIBERS) as pool:
        list(pool.map(subscribed, clients))
    seconds = time.perf_counter() - begun
    for client in clients:
        client.leave()
    return SUBSCRIBERS * EVENTS / seconds


def _idle() -> Iterator[Figure]:
    crowd = {"OVERNIGHT_MAX_CONNECTIONS": "5000", "OVERNIGHT_MAX_CONNECTIONS_PER_USER": "5000"}
    with stage.server(environment=crowd) as made, server("bare") as (port, bare):
        assert made.process is not None
        ours = _weight(made.port, made.process.pid, PATH, HELLO)
        least = _weight(port, bare, "/", None)
    yield Figure(
        name=f"memory for each of {IDLE} idle sockets", value=ours, unit="KiB",
        limit=least, limit_name="a bare ASGI server's", aim="≤ 28",
    )  # fmt: skip


def _weight(port: int, pid: int, path: str, first: bytes | None) -> float:
    for client in at_once(WARM, port, path, stage.headers(), first):
        client.leave()
    before = stage.memory(pid)
    clients = at_once(IDLE, port, path, stage.headers(), first)
    time.sleep(1)  # what the server writes about them is written together, a moment later
    grown = statistics.median(stage.memory(pid) for _ in range(3)) - before
    for client in clients:
        client.leave()
    return 1024 * grown / IDLE


def _cases() -> Iterator[Figure]:
    """Every Autobahn case that applies, by kosoku."""
    found = asyncio.run(judged(None, without=[*COMPRESSION, *TOO_LONG]))
    yield Figure(
        name="Autobahn cases, but those of compression and of messages above 1 MiB",
        value=sum(case.passed for case in found.values()), unit="passed", limit=len(found), limit_name="all",
    )  # fmt: skip
