"""Procrastinate on Postgres, by psycopg."""

from __future__ import annotations

from common import Enqueue, Peer, job, main
from procrastinate import App, PsycopgConnector


def app(url: str) -> App:
    made = App(connector=PsycopgConnector(conninfo=url))

    @made.task(name="noop")
    async def noop(payload: str) -> None:
        job(payload)

    return made


async def setup(url: str) -> None:
    async with app(url).open_async() as opened:
        await opened.schema_manager.apply_schema_async()


async def opened(url: str, clients: int) -> list[Enqueue]:
    made = app(url)
    await made.open_async()

    async def enqueue(payload: str) -> object:
        return await made.configure_task("noop").defer_async(payload=payload)

    return [enqueue] * clients


async def work(url: str) -> None:
    async with app(url).open_async() as opened:
        await opened.run_worker_async()


if __name__ == "__main__":
    main(Peer(setup, opened, work))
