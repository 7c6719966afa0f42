"""Programs of two versions side by side on one database, while its schema moves on and members are killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.faults.conftest import Try
from tests.faults.newer import VERSION, make_newer

from overnight.client.client import Client
from overnight.testing.cluster.layout import TOKEN
from overnight.testing.cluster.members import Member
from overnight.testing.cluster.stage import Stage

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_workers_of_two_versions_share_the_work_while_the_schema_moves_on(
    attempt: Try, root: Path
) -> None:
    seen: set[str] = set()

    async def plot(stage: Stage) -> None:
        newer = await asyncio.to_thread(make_newer, root / "newer")
        old, new, _ = stage.cluster.workers  # the third knows only the server, and stays as it is
        server = stage.cluster.servers[0]
        for member in (server, new):
            member.program.extra["PYTHONPATH"] = str(newer)
        async with stage.fault("schema moves on", "postgres"):
            await upgrade(server)
        await asyncio.gather(*(renew(stage, member) for member in (server, new)))
        for member in (old, new):
            await stage.let_pass(1)
            async with stage.fault("kill -9", member.name, lost=member):
                await member.program.kill()
                await member.start()
        async with Client(stage.cluster.urls[0], TOKEN) as client:
            seen.update(worker["version"] for worker in await client.workers() if worker["state"] != "gone")

    history = await attempt(
        plot, seed=40, runs=20, over_s=10, bound_s=180, servers=2, workers=2, remote_workers=1, lease_s=6
    )
    assert len(seen) == 2, seen
    assert VERSION in seen
    started = [log.events[1]["data"] for log in history.logs.values()]
    assert len({data["host_id"] for data in started if isinstance(data, dict) and "host_id" in data}) >= 2


async def renew(stage: Stage, member: Member) -> None:
    """End a member in order, and start what is its program now."""
    async with stage.fault("newer version", member.name):
        await member.program.stop()
        await member.start()


async def upgrade(member: Member) -> None:
    """`overnight db upgrade` as the member's program."""
    program = member.program
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "overnight", "db", "upgrade",
        env={**program.env, **program.extra}, cwd=program.cwd,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await done.communicate()
    assert done.returncode == 0, said.decode()
