"""The tools of trials do what they say: links that fail, witnesses that notice each other, time without a holder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.faults.story import DONE, story

from overnight.testing.agents import WITNESS_AGENT
from overnight.testing.cluster.links import Links
from overnight.testing.cluster.nemeses import ALL
from overnight.testing.history import AgentLife, History, read_agents
from overnight.testing.history.entries import Fault, Received
from overnight.testing.history.takeovers import takeovers
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def linked(tmp_path: Path) -> AsyncIterator[tuple[Links, Pipe]]:
    """A link to a server that answers whatever it is told, and a connection through it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    links = Links({"a": server.sockets[0].getsockname()[1]})
    await links.start(tmp_path / "links.log")
    reader, writer = await asyncio.open_connection("127.0.0.1", links.ports["a"])
    try:
        yield links, (reader, writer)
    finally:
        writer.close()
        await links.close()
        server.close()


async def said(pipe: Pipe, words: bytes, within: float = 30) -> bytes:
    reader, writer = pipe
    writer.write(words)
    return await asyncio.wait_for(reader.read(100), within)


@pytest.mark.parametrize("mode", ["silent", "deaf", "mute"])
async def test_a_link_that_passes_nothing_loses_nothing_either(tmp_path: Path, mode: str) -> None:
    async with linked(tmp_path) as (links, pipe):
        assert await said(pipe, b"one") == b"one"
        await links.become(mode, "a")  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            await said(pipe, b"two", within=0.3)
        await links.become("open", "a")
        assert await asyncio.wait_for(pipe[0].read(100), 30) == b"two"


async def test_a_link_that_is_cut_resets_and_refuses(tmp_path: Path) -> None:
    async with linked(tmp_path) as (links, pipe):
        assert await said(pipe, b"one") == b"one"
        await links.become("cut", "a")
        with pytest.raises(ConnectionError):
            await said(pipe, b"two")
        assert await refuses(links.ports["a"])


async def refuses(port: int) -> bool:
    """Whether nobody is behind that port, which shows when one connects, or when one reads."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return True
    try:
        return await asyncio.wait_for(reader.read(100), 30) == b""
    except ConnectionError:
        return True
    finally:
        writer.close()


async def test_witnesses_of_one_run_notice_each_other(tmp_path: Path) -> None:
    record = tmp_path / "agents.jsonl"

    def witness(turn: int) -> subprocess.Popen[bytes]:
        env = {"OVERNIGHT_RUN_ID": "run_a", "OVERNIGHT_TURN": str(turn), "OVERNIGHT_ATTEMPT": "1",
               "OVERNIGHT_FENCE": str(turn), "PATH": os.environ["PATH"]}  # fmt: skip
        argv = [sys.executable, "-I", "-S", str(WITNESS_AGENT), str(record)]
        process = subprocess.Popen(
            argv, env=env, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert process.stdin is not None
        with process.stdin as prompt:
            prompt.write(b'witness {"lines": 1, "pace": 60}')
        return process

    def lives() -> tuple[AgentLife, ...]:
        return read_agents(record)

    first = witness(1)
    await eventually(lambda: len(lives()) == 1)
    second = witness(2)
    await eventually(lambda: len(lives()) == 2 and lives()[1].clashed)
    first.kill()
    second.kill()
    assert (first.wait(), second.wait()) == (-9, -9)
    third = witness(3)
    await eventually(lambda: len(lives()) == 3)
    third.kill()
    third.wait()
    assert [(life.token, life.clashed, life.ended) for life in lives()] == [
        (1, False, None), (2, True, None), (3, False, None),
    ]  # fmt: skip


async def test_the_time_without_a_holder_is_counted_from_the_loss_of_its_host() -> None:
    told = story()
    told.event(DONE, 2, type="run.started", data={"host_id": "hst_lost", "worker": "wrk_1"})
    told.event(DONE, 6, type="run.recovered", data={"adopted": False, "reason": "worker_gone"})
    for place, entry in enumerate(told.entries):
        if isinstance(entry, Received) and entry.run_id == DONE:
            told.entries[place] = Received(
                at=10.0 + entry.seq, reader=entry.reader, run_id=DONE, seq=entry.seq, digest=entry.digest
            )
    lost = Fault(at=13.5, name="kill -9", phase="began", host="hst_lost")
    other = Fault(at=13.5, name="kill -9", phase="began", host="hst_other")
    (found,) = takeovers(History([*told.entries, lost, other]))
    assert (found.run_id, found.seconds, found.by_others, found.adopted) == (DONE, 2.5, True, False)


async def test_every_nemesis_has_a_name_of_its_own() -> None:
    assert len({nemesis.name for nemesis in ALL}) == len(ALL)
