"""Readers by the thousand: what each of them keeps of the server while it waits, and how a crowd is let in."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.stage import Stage, staged
from tests.server.tails import request, url

from overnight.engine.channel import Batch
from overnight.server import gate
from overnight.server.serve import _Protocol
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.signals import eventually
from overnight.wire import sse

pytestmark = pytest.mark.anyio
Reader = asyncio.StreamReader


@contextlib.asynccontextmanager
async def asking(
    stage: Stage, path: str, count: int
) -> AsyncIterator[list[tuple[Reader, asyncio.StreamWriter]]]:
    """So many connections that have asked for a stream, and have read nothing yet."""
    made = [await asyncio.open_connection("127.0.0.1", stage.port, limit=1 << 24) for _ in range(count)]
    try:
        for _, writer in made:
            writer.write(request(stage, path))
        yield made
    finally:
        for _, writer in made:
            writer.close()


async def until(reader: Reader, what: bytes) -> None:
    """It has come so far."""
    async with asyncio.timeout(30):
        await reader.readuntil(what)


def kept(kind: type, wanted: Callable[[Any], bool]) -> list[Any]:
    """What is still there of a kind."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is kind and wanted(one)]


async def test_a_reader_that_waits_keeps_nothing_of_what_it_was_sent(tmp_path: Path) -> None:
    async with staged(tmp_path, keepalive_s=3600) as stage:
        run = await stage.submitted()
        await stage.append(run, *["x" * 1000] * 600)
        log = await stage.log(run)
        async with asking(stage, url(run.id), 3) as readers:
            for reader, _ in readers:
                await until(reader, b"id: %d\n" % log[-1].seq)
            await eventually(
                lambda: not kept(Batch, lambda batch: batch.items[0] in log), within=20, what="nothing kept"
            )


async def test_a_reader_that_waits_is_one_task_and_keeps_nothing_of_its_request(stage: Stage) -> None:
    run = await stage.submitted()
    async with asking(stage, url(run.id), 1) as first:
        await until(first[0][0], sse.OPENED)
        before = len(asyncio.all_tasks())
        async with asking(stage, url(run.id), 20) as readers:
            for reader, _ in readers:
                await until(reader, sse.OPENED)
            await eventually(lambda: len(asyncio.all_tasks()) <= before + 20, within=20, what="one task each")
            streaming = kept(_Protocol, lambda one: one.cycle is not None and one.transport is not None)
            streaming = [one for one in streaming if not one.transport.is_closing()]
            assert len(streaming) == 21
            assert [one.headers for one in streaming] == [[]] * 21
            assert not [one for one in streaming if "headers" in one.scope]


async def test_a_crowd_that_comes_at_once_is_let_in_a_few_at_a_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await stage.submitted()
    inside, go = [], asyncio.Event()
    read = SqliteStore.read

    async def held(self: SqliteStore, query: Callable[[Any], Any]) -> Any:
        if query.__qualname__.startswith("stream_run"):
            inside.append(query)
            await go.wait()
        return await read(self, query)

    monkeypatch.setattr(SqliteStore, "read", held)
    async with asking(stage, url(run.id), 50) as readers:
        await eventually(
            lambda: len(inside) == gate._OPENING, within=20, what="the first to be at their turn"
        )
        async with stage.client() as http:
            assert (await http.get(f"/api/v1/runs/{run.id}")).status_code == 200, "others need no turn"
        readers[-1][1].close()
        assert len(inside) == gate._OPENING
        go.set()
        for reader, _ in readers[:-1]:
            await until(reader, sse.OPENED)
        listeners = stage.follower._streams[run.pk]._listeners
        await eventually(lambda: len(listeners) == 49, within=20, what="one has left before its turn")
