"""Two servers and three workers on one Postgres and Valkey: one of each kind is killed while they work."""

from __future__ import annotations

import pytest
from tests.faults.conftest import Try

from overnight.testing.cluster.plots import one_of_each
from overnight.testing.history.delivery import deliveries
from overnight.testing.history.takeovers import takeovers
from overnight.testing.signals import for_this_machine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
LEASE_S, POLL_S = 6.0, 1.0
SLACK_S = 2.0
"""What a machine with a core for everybody may add to a bound."""


async def test_one_of_each_kind_is_killed(attempt: Try) -> None:
    """Nothing is lost; without Valkey events come within the poll time; others take over within a lease and a second.

    That no two agents of a run ever lived at once is in the verdict, from the agents' own record.
    """
    history = await attempt(
        one_of_each,
        seed=30,
        runs=40,
        over_s=26,
        bound_s=180,
        pace_s=0.25,
        servers=2,
        workers=3,
        lease_s=LEASE_S,
        poll_s=POLL_S,
    )
    took = [one for one in takeovers(history) if one.by_others]
    without = deliveries(history, "valkey")
    print([(one.place, round(one.seconds, 2), one.margin_s) for one in took], without)
    assert took, "the killed worker held nothing: nothing was tried"
    slack_s = for_this_machine(SLACK_S)
    assert max(one.seconds for one in took) <= LEASE_S + 1 + slack_s
    assert all(one.margin_s is None or one.margin_s > 0 for one in took), "an agent lived still"
    assert [one.slowest_s <= POLL_S + slack_s for one in without] == [True]
