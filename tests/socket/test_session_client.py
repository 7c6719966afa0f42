"""The client of the agent protocol: sessions apart, over stop and restart, with their results and errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.stage import Stage, staged
from tests.socket.test_logs import linked

from overnight.client.socket.link import Nacked
from overnight.client.socket.sessions import AgentSessions
from overnight.errors import Disconnected, NotFound
from overnight.ids import RunId

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def talking(stage: Stage) -> AsyncIterator[AgentSessions]:
    async with linked(stage) as link:
        yield AgentSessions(link)


async def finish(stage: Stage, run_id: str) -> None:
    run = await stage.store.read(lambda tx: tx.runs.get(RunId(run_id), "usr_local"))
    await stage.finish(run)


async def test_each_session_has_its_own_result_whoever_is_read_first(stage: Stage) -> None:
    async with talking(stage) as sessions:
        ids = [await sessions.open(name=f"s{n}") for n in range(3)]
        runs = {id: (await sessions.send(id, "Hello."))["run"]["id"] for id in ids}
        for id in ids:
            await finish(stage, runs[id])
        async with asyncio.timeout(30):
            for id in reversed(ids):
                assert (await sessions.wait_result(id))["id"] == runs[id]
        found = [sessions.last_result(id) for id in ids]
        assert [one["id"] for one in found if one is not None] == list(runs.values())
        assert [sessions.last_error(id) for id in ids] == [None] * 3


async def test_a_stopped_session_goes_on_behind_what_was_read(stage: Stage) -> None:
    async with talking(stage) as sessions:
        id = await sessions.open()
        await sessions.send(id, "First.")
        await sessions.stop(id, "enough")
        async with asyncio.timeout(30):
            before = [one async for one in sessions.events(id)]
            assert sessions.is_stopped(id)
            seqs = [
                event["seq"] for one in before if one.type == "agent.event" for event in one.payload["events"]
            ]
            await sessions.resume(id)
            assert not sessions.is_stopped(id)
            await sessions.send(id, "Second.")
            async for one in sessions.events(id):
                if one.type == "agent.event":
                    assert one.payload["events"][0]["seq"] == seqs[-1] + 1
                    break


async def test_what_ends_a_link_ends_the_reading_of_its_sessions(stage: Stage) -> None:
    async with talking(stage) as sessions:
        id = await sessions.open()
        waiting = asyncio.create_task(sessions.wait_result(id))
        await sessions.state(id)
    with pytest.raises(Disconnected):
        await asyncio.wait_for(waiting, 30)
    assert sessions.last_error(id) is not None


async def test_a_session_that_was_removed_is_not_known_any_more(stage: Stage) -> None:
    async with talking(stage) as sessions:
        id, other = await sessions.open(), await sessions.open()
        sessions.remove_session_state(id)
        sessions.remove_session_state(id)
        with pytest.raises(NotFound):
            sessions.last_result(id)
        assert sessions.sessions == (other,)
        assert (await sessions.control(other, "heartbeat"))["status"] == "watching"
        with pytest.raises(Nacked) as refused:
            await sessions.control(other, "goal", text="x")
        assert refused.value.code == "not_available"
