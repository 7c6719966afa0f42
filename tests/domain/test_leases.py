"""Lease arithmetic: whatever the clocks do, two holders never trust one run at once."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from overnight.domain.lease import Lease, Sighting, keeper_deadline
from overnight.errors import LeaseLost

BOOT = st.floats(0, 1e9)
LEASE = st.floats(0.5, 3600)


@given(BOOT, st.lists(BOOT), LEASE)
def test_a_renewal_that_was_sent_earlier_never_shortens_the_trust(
    start: float, sent: list[float], lease_s: float
) -> None:
    lease = Lease(run_pk=1, token=1, trusted_until=start)
    for at in sent:
        renewed = lease.renewed(at, lease_s)
        assert renewed.trusted_until >= lease.trusted_until
        assert renewed.trusted_until in (lease.trusted_until, at + lease_s)
        lease = renewed


@given(BOOT, BOOT, st.integers(0, 5), st.integers(0, 5))
def test_a_lease_counts_only_with_its_token_and_in_its_time(
    until: float, now: float, mine: int, theirs: int
) -> None:
    lease = Lease(run_pk=1, token=mine, trusted_until=until)
    if mine == theirs and now < until:
        lease.check(now, theirs)
        return
    with pytest.raises(LeaseLost):
        lease.check(now, theirs)


@given(LEASE, BOOT, st.floats(0, 60), st.floats(0, 60), st.floats(-1e6, 1e6))
def test_the_holder_stops_trusting_before_another_takes_over(
    lease_s: float, sent: float, commit_delay: float, look_delay: float, skew: float
) -> None:
    # The other host's boot clock has nothing to do with ours: only its differences count.
    holder = Lease(run_pk=1, token=1, trusted_until=0).renewed(sent, lease_s)
    seen_at = sent + commit_delay + look_delay
    sighting = Sighting(token=1, renewal=0, since=0).seen(1, 1, seen_at + skew)
    takeover = sighting.since - skew + lease_s
    assert takeover >= holder.trusted_until - 1e-3


@given(BOOT, LEASE, st.floats(0, 7200))
def test_a_sighting_is_stale_only_when_nothing_moved_for_a_whole_lease(
    since: float, lease_s: float, later: float
) -> None:
    sighting = Sighting(token=3, renewal=9, since=since)
    now = since + later
    assert sighting.seen(3, 9, now) is sighting
    assert sighting.seen(3, 10, now).since == sighting.seen(4, 9, now).since == now
    assume(abs(later - lease_s) > 1e-3)
    assert sighting.stale(now, lease_s) is (later > lease_s)


@given(BOOT, st.floats(0.5, 3600), st.floats(0.05, 600))
def test_a_keepers_ladder_is_over_before_the_lease_is(sent: float, lease_s: float, grace_s: float) -> None:
    if lease_s <= grace_s + 3.0:
        with pytest.raises(ValueError, match="too short"):
            keeper_deadline(sent, lease_s, grace_s)
        return
    deadline = keeper_deadline(sent, lease_s, grace_s)
    assert sent < deadline + 1e-3
    assert deadline + grace_s + 2.0 <= sent + lease_s - 1.0 + 1e-3
