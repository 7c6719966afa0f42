"""`overnight workers`, against a real server."""

from __future__ import annotations

import json

import pytest
from tests.cli.shell import Shell
from tests.server.stage import HOST

from overnight.domain.worker import Worker
from overnight.ids import new_worker_id

pytestmark = pytest.mark.anyio


async def added(shell: Shell, **changes: object) -> str:
    now = shell.stage.clock.wall_ms()
    values: dict[str, object] = {
        "pk": 0, "id": new_worker_id(now), "host_id": HOST, "host_name": "here", "pid": 1, "version": "0", "slots": 2,
        "backends": ("echo", "codex"), "labels": {"gpu": "a100"}, "started_at": now, "seen_at": now,
    }  # fmt: skip
    row = Worker(**(values | changes))  # type: ignore[arg-type]
    return (await shell.stage.store.write(lambda tx: tx.workers.add(row))).id


async def test_workers_by_commands(shell: Shell) -> None:
    worker = await added(shell)
    gone = await added(shell, state="gone")
    listed = (await shell("workers")).out
    assert "echo codex" in listed
    assert "gpu=a100" in listed
    assert "0/2" in listed
    assert gone not in listed
    assert gone in (await shell("workers", "list", "--all")).out
    drained = await shell("workers", "drain", worker[-8:], "--reason", "new disk")
    assert (drained.status, drained.err or drained.out) == (0, f"{worker} is draining (new disk)\n")
    (row,) = (await shell("workers", "--json")).rows
    assert (row["state"], row["reason"]) == ("draining", "new disk")
    assert (await shell("workers", "release", worker)).status == 1
    done = await shell("workers", "resume", worker, "--json")
    assert json.loads(done.out.splitlines()[-1])["state"] == "active"  # behind the log of the staged server


async def test_a_beginning_that_could_be_two_is_refused(shell: Shell) -> None:
    await added(shell)
    await added(shell)
    refused = await shell("workers", "drain", "wrk_")
    assert refused.status == 2
    assert "could be" in refused.err
    assert (await shell("workers", "drain", "wrk_00000000000000000000000000")).status == 1
