"""The client over real restarts: killed servers, other ports, new tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import Server, gap_free

from overnight.client import Client, Endpoint
from overnight.config import server_file
from overnight.testing.services.ports import free_port
from overnight.testing.signals import wait_until

pytestmark = pytest.mark.anyio
SCRIPT = [["read_prompt"], {"lines_until": {"path": "enough", "per_second": 200}}]


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Server]:
    made = Server(root=tmp_path, scripts={"steady": SCRIPT})
    await asyncio.to_thread(made.start)
    yield made
    await asyncio.to_thread(made.stop)


def located(server: Server) -> Endpoint | None:
    """As the commands find it: by `server.json`, whose token is another at every start."""
    found = server_file.read(server.data, server.env())
    return Endpoint(found.url, found.token) if found else None


def talks(events: list[Any]) -> bool:
    """Whether the agent is at work."""
    return any(event["type"] == "output.recorded" for event in events)


async def moved(server: Server) -> None:
    """Kill -9, and a new server on another port."""
    await asyncio.to_thread(server.kill)
    server.port = free_port()
    server.http.base_url = f"http://127.0.0.1:{server.port}"
    await asyncio.to_thread(server.start)


async def test_a_follower_sees_the_log_and_nothing_else_over_three_kills(server: Server) -> None:
    first = located(server)
    assert first is not None
    async with Client(first.url, first.token, locate=lambda: located(server)) as client:
        run = await client.submit(
            {"goal": "go", "backend": "steady", "mode": "oneshot", "workspace": str(server.workspace())}
        )
        seen: list[Any] = []

        async def follow() -> None:
            async for event in client.follow(run["id"], patience_s=90.0):
                seen.append(event)  # noqa: PERF401  the test looks on

        following = asyncio.create_task(follow())
        for _ in range(3):
            before = len(seen)
            await asyncio.to_thread(wait_until, lambda before=before: talks(seen[before:]), within=60)
            await moved(server)
        (server.workspace() / "enough").touch()
        await asyncio.wait_for(following, 90)
        assert client.url.endswith(f":{server.port}")
        assert (await client.run(run["id"]))["state"] == "completed"
    assert gap_free(seen)
    assert seen == server.events(run["id"])
    assert [event["data"]["adopted"] for event in seen if event["type"] == "run.recovered"] == [True] * 3


async def test_a_submission_finds_the_server_that_took_over(server: Server) -> None:
    first = located(server)
    assert first is not None
    async with Client(first.url, first.token, locate=lambda: located(server)) as client:
        await moved(server)
        run = await client.submit({"goal": "go", "backend": "echo", "mode": "oneshot"})
        assert (await client.run(run["id"]))["id"] == run["id"]
