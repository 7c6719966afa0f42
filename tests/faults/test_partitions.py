"""Links, databases and hosts that fail without a word: nobody is told, and nobody may guess wrong."""

from __future__ import annotations

import pytest
from tests.faults.conftest import Try

from overnight.testing.cluster.nemeses import named
from overnight.testing.cluster.plots import each

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def test_partitions_and_stopped_hosts_lose_nothing_and_run_nothing_twice(attempt: Try) -> None:
    plan = each(named("lose packets", "end sessions", "stop worker"))
    await attempt(
        plan,
        seed=31,
        runs=30,
        over_s=16,
        bound_s=180,
        pace_s=0.2,
        servers=2,
        workers=3,
        lease_s=6,
        namespaces=frozenset({"w3"}),
    )
