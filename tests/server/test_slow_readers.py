"""Readers that do not read, and many that do: none costs the others anything."""

import asyncio
import contextlib
import json
import socket
from pathlib import Path

import pytest
from tests.server.stage import Stage, staged
from tests.server.tails import request, tail, url, whole

from overnight.testing.signals import eventually
from overnight.wire import sse

pytestmark = pytest.mark.anyio


def resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


async def test_a_stalled_reader_is_dropped_and_memory_stays_flat(tmp_path: Path) -> None:
    async with staged(tmp_path, pending_bytes=1024 * 1024) as stage:
        run = await stage.submitted()
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stalled, ("127.0.0.1", stage.port))
            await loop.sock_sendall(stalled, request(stage, url(run.id)))
            async with tail(stage, url(run.id)) as healthy:
                await healthy.has(1)
                await stage.append(run, *["x" * 10_000] * 50)
                before = resident()
                total = 51
                while len(stage.follower._streams[run.pk]._listeners) == 2:
                    await stage.append(run, *["y" * 10_000] * 50)
                    total += 50
                    assert total < 10_000, "the stalled reader was not dropped after 100 MB"
                assert total < 1500
                await eventually(
                    lambda: healthy.body.count(b"\nid: ") + 1 >= total, what="the healthy reader has all"
                )
                healthy_bytes = len(healthy.body)
            assert resident() - before - 3 * healthy_bytes < 24 * 1024 * 1024
        log = await stage.log(run)
        status, body = 200, healthy.body
        assert body == sse.OPENED + sse.events(log), status


async def test_a_send_that_is_blocked_too_long_drops_the_reader(tmp_path: Path) -> None:
    async with staged(tmp_path, send_timeout_s=0.2) as stage:
        run = await stage.submitted()
        await stage.append(run, *["x" * 10_000] * 900)
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stalled, ("127.0.0.1", stage.port))
            await loop.sock_sendall(stalled, request(stage, url(run.id)))
            await eventually(lambda: stage.follower._streams, what="the stream to open")
            await eventually(lambda: not stage.follower._streams, what="the stalled reader to be dropped")
        async with stage.client() as http:
            assert b"overnight_streams_dropped_total 1" in (await http.get("/metrics")).content


async def test_ten_tabs_do_not_starve_a_control_call(stage: Stage) -> None:
    run = await stage.submitted()
    other = await stage.submitted("other")
    done = asyncio.Event()

    async def flood() -> None:
        while not done.is_set():
            await stage.append(run, *["z" * 200] * 100)

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(tail(stage, url(run.id)))
            await stack.enter_async_context(tail(stage, "/api/v1/stream"))
        flooding = asyncio.create_task(flood())
        async with stage.client() as http:
            answer = await http.post(f"/api/v1/runs/{other.id}/control", json={"action": " PAUSE "})
        assert (answer.status_code, answer.json()["state"]) == (202, "paused")
        done.set()
        await flooding


async def test_too_many_streams_are_refused_with_429(tmp_path: Path) -> None:
    async with staged(tmp_path, max_connections=2) as stage:
        run = await stage.submitted()
        async with tail(stage, url(run.id)), tail(stage, url(run.id)):
            status, body = await whole(stage, run.id)
            assert (status, json.loads(body)["code"]) == (429, "too_many_requests")
