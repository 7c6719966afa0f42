"""Doctor on workers: who is silent or in quarantine, and what nobody offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from overnight.domain.worker import Worker
from overnight.engine import crew
from overnight.ids import HostId, WorkerId
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock

WORKER = Worker(
    pk=1, id=WorkerId("wrk_1"), host_id=HostId("hst_1"), host_name="red", pid=1, version="1", slots=4,
    backends=("echo",), started_at=0, seen_at=0,
)  # fmt: skip


@pytest.mark.anyio
async def test_a_worker_that_is_silent_is_told(tmp_path: Path) -> None:
    clock = ManualClock()
    store = SqliteStore(tmp_path / "o.db", clock, InprocNotifier())
    await store.start()
    look = crew.crew(store, clock, stale_after_s=15)
    assert (await look()).message == "none, and no run waits for one"
    await store.write(
        lambda tx: tx.workers.add(replace(WORKER, started_at=clock.wall_ms(), seen_at=clock.wall_ms()))
    )
    assert (await look()).status == "ok"
    await clock.advance(16)
    found = await look()
    assert (found.status, "red" in found.message, bool(found.mend)) == ("warn", True, True)
    await store.close()


def test_what_nobody_offers_comes_first() -> None:
    sick = replace(WORKER, state="quarantined", reason="bwrap failed", host_name="blue")
    finding = crew._finding([sick], [WORKER], ["backend codex: offered by nobody"])
    assert "codex" in finding.message
    assert "overnight worker" in finding.mend
    finding = crew._finding([sick], [WORKER], [])
    assert "blue (bwrap failed)" in finding.message
    assert "release" in finding.mend
