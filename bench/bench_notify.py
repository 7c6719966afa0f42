"""From one process to another: events through Valkey, wake-ups through Postgres, each beside the bare commands."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import redis.asyncio

from bench import stage
from bench.figure import Figure
from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice, stream_topic
from overnight.stores.redis.notifier import RedisNotifier
from overnight.stores.sql.announcer import PostgresNotifier
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.services.valkey import valkey

EVENTS, SIZE = 40_000, 400
LATE_EVENTS, LATE_RATE = 1000, 250
ROUNDS = 3
AHEAD = 100
TOPIC = stream_topic("run_0")
Tell = Callable[[int, int], Awaitable[list[float]]]
"""Has so many sent, at such a rate; the moments at which each was sent, where there is a rate."""
Take = Callable[[int], Awaitable[list[float]]]
"""Takes in the next so many events; gives the seconds that each was on its way. Those that were lost are missing."""


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    del long
    with valkey() as server:
        async with (
            _notified(RedisNotifier(server.url, stream_length=EVENTS)) as ours,
            _bare(server.url) as bare,
        ):
            sending = ((("ours", server.url, TOPIC), ours), (("xadd", server.url, "bare"), bare))
            rates, late = [], []
            for command, take in sending:
                async with _telling(*command) as tell:
                    rates.append([await _rate(tell, take) for _ in range(ROUNDS)])
                    late.append(await _late(tell, take))
        yield Figure(
            name="events relayed by Valkey to another process", value=statistics.median(rates[0]), unit="events/s",
            limit=statistics.median(rates[1]), limit_name="bare XADD pipeline, XREAD BLOCK",
        )  # fmt: skip
        for figure in _lateness("an event, by Valkey", late, "bare XADD, XREAD BLOCK"):
            yield figure
    yield await _published()
    database = PostgresServer()
    database.start()
    try:
        late = []
        async with _woken(PostgresNotifier(database.url())) as ours, _listening(database.url()) as bare:
            for how, topic, take in (("announced", TOPIC, ours), ("notify", "bare", bare)):
                async with _telling(how, database.url(), topic) as tell:
                    heard = asyncio.ensure_future(take(LATE_EVENTS))
                    sent = await tell(LATE_EVENTS, LATE_RATE)
                    late.append([then - now for now, then in zip(sent, await heard, strict=False)])
        for figure in _lateness("a wake-up, by Postgres", late, "bare NOTIFY, LISTEN"):
            yield figure
    finally:
        database.remove()


def _lateness(what: str, late: list[list[float]], limit_name: str) -> list[Figure]:
    return [
        Figure(
            name=f"from a process to another, {what}, {LATE_RATE}/s, {name}", unit="ms",
            value=1000 * stage.percentile(late[0], part), limit=1000 * stage.percentile(late[1], part),
            limit_name=limit_name,
        )
        for name, part in (("p50", 0.5), ("p99", 0.99))
    ]  # fmt: skip


async def _published() -> Figure:
    """What the process that publishes pays: nobody follows, and Valkey takes everything."""
    with valkey() as server:
        notifier = RedisNotifier(server.url)
        await notifier.start()
        event = Recorded(1, "message.completed", b"x" * SIZE)
        begun = time.process_time()
        for told in range(EVENTS // 20):
            await _room(notifier, told)
            notifier.publish([Notice(topic=TOPIC, events=(event,) * 20)])
        await _room(notifier, EVENTS // 20 + AHEAD)
        spent = time.process_time() - begun
        await notifier.close()
        return Figure(name="processor time of an event that is told", value=1e6 * spent / EVENTS, unit="µs")


async def _room(notifier: RedisNotifier, told: int) -> None:
    """Wait until Valkey has nearly all that it was told."""
    while notifier.figures.counts["published"] < told - AHEAD:  # noqa: ASYNC110 -- the loop must run
        await asyncio.sleep(0)


async def _rate(tell: Tell, take: Take) -> float:
    taking = asyncio.ensure_future(take(EVENTS))
    begun = time.perf_counter()
    await tell(EVENTS, 0)
    found = await taking
    return len(found) / (time.perf_counter() - begun)


async def _late(tell: Tell, take: Take) -> list[float]:
    taking = asyncio.ensure_future(take(LATE_EVENTS))
    await tell(LATE_EVENTS, LATE_RATE)
    return sorted(await taking)


@asynccontextmanager
async def _telling(how: str, url: str, topic: str) -> AsyncIterator[Tell]:
    """The other process: tells so many, at such a rate."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.telling", how, url, topic,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    out, into = process.stdout, process.stdin

    async def said(word: bytes) -> list[bytes]:
        """The rest of the line that begins so; lines of the log may stand before it."""
        while (words := (await out.readline()).split())[:1] != [word]:
            if not words:
                raise RuntimeError("the other process has ended")
        return words[1:]

    await said(b"ready")

    async def tell(count: int, rate: int) -> list[float]:
        into.write(b"%d %d %d\n" % (count, rate, SIZE))
        await into.drain()
        return [int(sent) / 1e9 for sent in await said(b"done")]

    try:
        yield tell
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _notified(notifier: RedisNotifier) -> AsyncIterator[Take]:
    await notifier.start()
    subscription = notifier.subscribe(TOPIC)
    last = 0

    async def take(count: int) -> list[float]:
        nonlocal last
        late: list[float] = []
        until = last + count
        while last < until:
            notices = await subscription.next(10)
            if not notices and late:  # some were lost: what came counts
                last = until
            for notice in notices:
                now = time.monotonic_ns()
                late += [(now - int(event.body[6:26])) / 1e9 for event in notice.events]
                last = notice.events[-1].seq if notice.events else last
        return late

    try:
        yield take
    finally:
        await notifier.close()


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Take]:
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    position = b"0-0"

    async def take(count: int) -> list[float]:
        nonlocal position
        late: list[float] = []
        while len(late) < count:
            found: Any = await client.xread({"bare": position}, count=2000, block=10_000)
            now = time.monotonic_ns()
            late += [(now - int(fields[b"body"][6:26])) / 1e9 for _, fields in found[0][1]]
            position = found[0][1][-1][0]
        return late

    try:
        yield take
    finally:
        await client.aclose()


@asynccontextmanager
async def _woken(notifier: PostgresNotifier) -> AsyncIterator[Take]:
    """The moments at which wake-ups came, which carry none; each was about a topic of its own."""
    await notifier.start()
    numbers = {f"{TOPIC}{number}": number for number in range(LATE_EVENTS)}
    subscription = notifier.subscribe(*numbers)

    async def take(count: int) -> list[float]:
        came: dict[int, float] = {}
        while len(came) < count:
            notices = await subscription.next(30)
            came.update((numbers[notice.topic], time.monotonic()) for notice in notices)
        return [came[number] for number in range(count)]

    try:
        yield take
    finally:
        await notifier.close()


@asynccontextmanager
async def _listening(url: str) -> AsyncIterator[Take]:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    await connection.execute("LISTEN bare")

    async def take(count: int) -> list[float]:
        return [time.monotonic() async for _ in connection.notifies(stop_after=count)]

    try:
        yield take
    finally:
        await connection.close()
