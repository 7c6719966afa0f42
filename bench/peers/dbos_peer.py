"""DBOS on Postgres or SQLite. Enqueuing is done by its client, which runs no workflows itself."""

from __future__ import annotations

import asyncio

from common import Enqueue, Peer, job, main
from dbos import DBOS, DBOSClient

QUEUE, VERSION = "bench", "1"


def launched(url: str) -> None:
    DBOS(config={"name": "bench", "system_database_url": url, "application_version": VERSION})
    DBOS.launch()


@DBOS.workflow(name="noop")
def noop(payload: str) -> None:
    job(payload)


async def setup(url: str) -> None:
    launched(url)
    await DBOS.register_queue_async(QUEUE)
    await asyncio.to_thread(DBOS.destroy)


async def opened(url: str, clients: int) -> list[Enqueue]:
    client = DBOSClient(system_database_url=url)

    async def enqueue(payload: str) -> object:
        options = {"workflow_name": "noop", "queue_name": QUEUE, "app_version": VERSION}
        return await asyncio.to_thread(client.enqueue, options, payload)

    return [enqueue] * clients


async def work(url: str) -> None:
    launched(url)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main(Peer(setup, opened, work))
