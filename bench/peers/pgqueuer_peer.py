"""PgQueuer on Postgres, by asyncpg."""

from __future__ import annotations

from typing import Any

import asyncpg
from common import Enqueue, Peer, job, main
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries


async def setup(url: str) -> None:
    await Queries(AsyncpgDriver(await asyncpg.connect(url))).install()


async def opened(url: str, clients: int) -> list[Enqueue]:
    return [await _client(url) for _ in range(clients)]


async def _client(url: str) -> Enqueue:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))

    async def enqueue(payload: str) -> object:
        return await queries.enqueue("noop", payload.encode())

    return enqueue


async def work(url: str) -> None:
    queuer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(url))

    @queuer.entrypoint("noop")
    async def noop(found: Any) -> None:
        job(found.payload.decode())

    await queuer.run()


if __name__ == "__main__":
    main(Peer(setup, opened, work))
