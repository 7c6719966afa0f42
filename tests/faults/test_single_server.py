"""One server on SQLite: killed, stopped, out of disk, with failing writes, a jumping clock and rude readers."""

from __future__ import annotations

import pytest
from tests.faults.conftest import Try

from overnight.testing.cluster.nemeses import named
from overnight.testing.cluster.plots import each

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
ALONE = {"store": "sqlite", "valkey": False, "servers": 1, "workers": 0, "slots": 16}


async def test_nothing_is_lost_whatever_is_done_to_its_processes_and_its_clock(attempt: Try) -> None:
    """A fixed plan; the seed is fixed too, so that CI tries the same each time."""
    plan = each(
        named("kill server", "kill agent", "clock jump", "kill keeper", "stop server", "connection storm"),
        rest_s=0.5,
    )
    history = await attempt(
        plan, seed=20, runs=24, over_s=8, bound_s=180, own_clocks=frozenset({"s1"}), **ALONE
    )
    assert history.agents


async def test_a_full_disk_and_failing_writes_refuse_work_and_lose_none(attempt: Try) -> None:
    plan = each(named("full disk", "killed at a sync", "failing writes", "failing syncs"), rest_s=0.5)
    await attempt(
        plan, seed=21, runs=20, over_s=12, bound_s=180, small_disks={"s1": 64},
        config="[storage]\nreserve_bytes = 8388608\n", **ALONE,
    )  # fmt: skip
