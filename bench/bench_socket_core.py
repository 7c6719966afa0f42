"""Envelopes through both cores of the socket protocol, against the least that can be done: JSON there and back."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import orjson

from bench.figure import Figure
from overnight.client.socket.inproc import pair
from overnight.client.socket.link import Admission, Link
from overnight.wire.socket.catalog.control import Hello
from overnight.wire.socket.connection import Connection
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.events import Received
from overnight.wire.socket.limits import Limits

MESSAGES, ROUNDS = 20_000, 5
SOAK_S = 120
WINDOW = Limits(window=1_000_000, queue=1_000_000, queue_bytes=1 << 30, keep_bytes=1 << 20)
START: dict[str, object] = {"context": {"messages": []}}
DELTA = {"index": 0, "delta": "A few words at a time, "}
EVENTS = orjson.dumps({"cursor": 7, "events": [{"seq": number, "type": "x"} for number in range(20)]})


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    for batch, name in ((1, "one a message"), (64, "64 a message")):
        limit = _rate(lambda batch=batch: _json(batch))  # type: ignore[misc]
        yield Figure(
            name=f"socket core: text.delta, {name}", value=_rate(lambda batch=batch: _core(batch)), unit="/s",  # type: ignore[misc]
            limit=limit, limit_name="orjson alone", aim="",
        )  # fmt: skip
    yield Figure(name="socket core: one batch of 20 events to 100 readers", value=_rate(_crowd), unit="/s")
    if long:
        async for one in _soak():
            yield one


def _rate(work: Callable[[], int]) -> float:
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - began))
    return statistics.median(rates)


def greeted() -> tuple[Connection, Connection]:
    """A client and a server that know each other."""
    client, server = Connection("client", WINDOW), Connection("server", WINDOW)
    client.hello({}, 1)
    for data in client.data_to_send():
        for one in server.receive(data, 1):
            assert isinstance(one, Received)
            server.welcome({"connection": "c", "resume_key": "k"}, 1, hello=one.envelope)
    _carry(server, client)
    return client, server


def _carry(there: Connection, here: Connection) -> int:
    return sum(len(here.receive(data, 1)) for data in there.data_to_send())


def _core(batch: int) -> int:
    client, server = greeted()
    client.queue("stream:a", "stream.start", START, now_ms=1)
    _carry(client, server)
    for _ in range(MESSAGES // batch):
        for _ in range(batch):
            server.queue("stream:a", "text.delta", DELTA, now_ms=1)
        _carry(server, client)
    return MESSAGES // batch * batch


def _json(batch: int) -> int:
    one = {"v": 1, "type": "text.delta", "scope": "stream:a", "id": "s7", "seq": 7, "ts": 1, "payload": DELTA}
    for _ in range(MESSAGES // batch):
        orjson.loads(orjson.dumps([one] * batch))
    return MESSAGES // batch * batch


def _crowd() -> int:
    """What a server does for its readers: the batch is JSON already, and each gets it in an envelope of its own."""
    _, server = greeted()
    scopes = [f"run:{number}" for number in range(100)]
    for scope in scopes:
        server.open(scope)
    rounds = MESSAGES // len(scopes)
    for _ in range(rounds):
        for scope in scopes:
            server.queue(scope, "run.events", EVENTS, now_ms=1)
        server.data_to_send()
    return rounds * len(scopes)


async def _stream(link: Link, envelope: Envelope) -> None:
    await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
    for number in range(100):
        await link.send(envelope.scope, "text.delta", {"index": 0, "delta": str(number)})
    await link.end(envelope.scope, "aborted", {"reason": "enough"})


async def _greet(_link: Link, _hello: Hello) -> Admission:
    return Admission(connection="c", resume_key="k")


async def _soak() -> AsyncIterator[Figure]:
    """Fifty sessions with four streams each, one after another in every place, all on one connection."""
    ours, theirs = pair()
    server = Link("server", theirs, handlers={"stream.start": _stream}, on_hello=_greet)
    client = Link("client", ours)
    seen: Counter[str] = Counter()
    until = time.monotonic() + SOAK_S

    async def place(name: str) -> None:
        while time.monotonic() < until:
            scope = f"stream:{name}.{seen[name]}"
            await client.request(scope, "stream.start", START, timeout_s=600)
            heard = [one async for one in client.inbox(scope)]
            seen[name] += 1
            seen["wrong"] += [one.payload.get("delta") for one in heard] != [*map(str, range(100)), None]
            seen["events"] += len(heard)

    running = [asyncio.create_task(server.run()), asyncio.create_task(client.run())]
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(place(f"{number // 4}.{number % 4}"))
    left = sum(one.connection.scopes.counts()["open"] + one.connection.waiting for one in (client, server))
    await client.close()
    await server.close()
    await asyncio.gather(*running)
    yield Figure(
        name=f"socket core: 200 streams at once, {SOAK_S} s", value=seen["events"] / SOAK_S, unit="/s"
    )
    yield Figure(
        name=f"socket core: {seen['wrong']} streams went wrong, {left} things were left", value=left, unit=""
    )
