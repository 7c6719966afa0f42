"""SAQ on Redis or Valkey."""

from __future__ import annotations

from typing import Any

from common import Enqueue, Peer, job, main
from saq import Queue, Worker


async def noop(_: Any, *, payload: str) -> None:
    job(payload)


async def setup(url: str) -> None:
    queue = Queue.from_url(url)
    await queue.connect()
    await queue.redis.flushdb()
    await queue.disconnect()


async def opened(url: str, clients: int) -> list[Enqueue]:
    queue = Queue.from_url(url)
    await queue.connect()

    async def enqueue(payload: str) -> object:
        return await queue.enqueue("noop", payload=payload)

    return [enqueue] * clients


async def work(url: str) -> None:
    queue = Queue.from_url(url)
    await queue.connect()
    await Worker(queue, functions=[noop]).start()


if __name__ == "__main__":
    main(Peer(setup, opened, work))
