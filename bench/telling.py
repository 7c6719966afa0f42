"""The other process of `bench_notify`: `python -m bench.telling HOW URL TOPIC`, then lines `COUNT RATE SIZE`.

HOW is `ours` (the notifier), `announced` (the one on Postgres), or the bare ways: `xadd`, `notify`. RATE 0 is as fast
as it goes. Every body begins with the monotonic clock's nanoseconds at which it was sent; what was sent at a rate is
told of afterwards, too.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import psycopg
import redis.asyncio
import uvloop

from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice
from overnight.stores.redis.notifier import RedisNotifier
from overnight.stores.sql.announcer import PostgresNotifier

AHEAD = 100
TOGETHER = 20
"""Events of one commit when there is no hurry to spread them."""
Send = Callable[[int, int, int], Awaitable[None]]


def bodies(first: int, count: int, size: int) -> list[Recorded]:
    """That many events from `first` on."""
    stamp = b'{"at":%020d,"x":"' % time.monotonic_ns()
    rest = b"x" * max(0, size - len(stamp) - 2) + b'"}'
    return [Recorded(seq, "message.completed", stamp + rest) for seq in range(first, first + count)]


async def ours(url: str, topic: str) -> Send:
    notifier = RedisNotifier(url)
    await notifier.start()
    told = 0

    async def send(first: int, count: int, size: int) -> None:
        nonlocal told
        while notifier.figures.counts["published"] < told - AHEAD:  # noqa: ASYNC110 -- the loop must run
            await asyncio.sleep(0)
        notifier.publish([Notice(topic=topic, events=tuple(bodies(first, count, size)))])
        told += 1

    return send


async def announced(url: str, topic: str) -> Send:
    notifier = PostgresNotifier(url)
    await notifier.start()

    async def send(first: int, count: int, size: int) -> None:
        events = tuple(bodies(first, count, size))
        notifier.publish([Notice(topic=f"{topic}{first - 1}", events=events)])

    return send


async def xadd(url: str, topic: str) -> Send:
    client = redis.asyncio.Redis.from_url(url, protocol=2)

    async def send(first: int, count: int, size: int) -> None:
        pipe = client.pipeline(transaction=False)
        for event in bodies(first, count, size):
            fields = {"by": "x", "seq": event.seq, "type": event.type, "body": event.body}
            pipe.xadd(topic, fields, maxlen=100_000, approximate=True)  # type: ignore[arg-type]
        await pipe.execute()

    return send


async def notify(url: str, topic: str) -> Send:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    await connection.execute("SET synchronous_commit = off")

    async def send(first: int, count: int, size: int) -> None:
        del count, size
        await connection.execute("SELECT pg_notify(%s, %s)", (topic, str(first)))

    return send


HOW = {"ours": ours, "announced": announced, "xadd": xadd, "notify": notify}


async def main(how: str, url: str, topic: str) -> None:
    """Send what each line asks for."""
    loop = asyncio.get_running_loop()
    send = await HOW[how](url, topic)
    print("ready", flush=True)
    seq = 1
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        count, rate, size = map(int, line.split())
        each = 1 if rate else TOGETHER
        begun = loop.time()
        sent: list[int] = []
        for number in range(0, count, each):
            if rate:
                sent.append(time.monotonic_ns())
            await send(seq, each, size)
            seq += each
            if rate:
                await asyncio.sleep(max(0.0, begun + (number + 1) / rate - loop.time()))
            elif number % 1000 == 0:
                await asyncio.sleep(0)
        print("done", *sent, flush=True)


uvloop.run(main(*sys.argv[1:]))
