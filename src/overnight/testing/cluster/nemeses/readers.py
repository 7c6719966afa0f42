"""Clients that misbehave: storms of connections that are broken off, and readers that do not read."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from overnight.testing.cluster.layout import TOKEN
from overnight.testing.cluster.nemeses.nemesis import Nemesis
from overnight.testing.cluster.stage import Stage

STORM = 150


async def storm(stage: Stage) -> None:
    """Many connections at once, each broken off at another moment."""
    async with stage.fault("connection storm", "", f"{STORM} streams"):
        await asyncio.gather(*(_visit(stage, stage.chance.uniform(0, 1)) for _ in range(STORM)))


async def slow_readers(stage: Stage) -> None:
    """Streams that are opened and not read."""
    seconds = stage.chance.uniform(2, 6)
    async with stage.fault("slow readers", "", f"for {seconds:.1f} s"):
        await asyncio.gather(*(_visit(stage, seconds) for _ in range(20)))


async def _visit(stage: Stage, seconds: float) -> None:
    """Ask for a stream of some run, read nothing, and break off."""
    runs = list(stage.workload.live) or ["run_00000000000000000000000000"]
    url = urlsplit(stage.chance.choice(stage.cluster.urls))
    path = f"/api/v1/runs/{stage.chance.choice(runs)}/stream"
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            asked = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            writer.write(asked.encode())
            await asyncio.sleep(seconds)
        finally:
            writer.transport.abort()


READERS = (
    Nemesis(name="connection storm", act=storm),
    Nemesis(name="slow readers", act=slow_readers),
)
