"""Rates as buckets of starts: never more than was allowed, and never stuck, whatever the clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.queue_limits import Rate

RATES = st.builds(Rate, starts=st.integers(1, 1000), seconds=st.sampled_from([1, 60, 3600, 86_400]))
STEPS = st.lists(st.tuples(st.integers(-50_000, 5_000_000), st.integers(0, 5)), max_size=60)


@pytest.mark.parametrize(
    "text, starts, seconds", [("30/hour", 30, 3600), (" 2 / second ", 2, 1), ("1/day", 1, 86_400)]
)
def test_what_operators_write(text: str, starts: int, seconds: int) -> None:
    assert Rate.parse(text) == Rate(starts=starts, seconds=seconds)
    assert Rate.parse(str(Rate.parse(text))) == Rate.parse(text)


@pytest.mark.parametrize(
    "text", ["", "30", "0/hour", "-1/hour", "30/week", "1.5/hour", "1e3/hour", "٣/hour/"]
)
def test_what_means_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="such as 30/hour"):
        Rate.parse(text)


@given(RATES, STEPS)
def test_never_more_than_a_bucket_and_what_has_flowed_in_since(
    rate: Rate, steps: list[tuple[int, int]]
) -> None:
    """For a clock that only goes forward."""
    now = begin = 10**15
    full_at, taken = 0, 0
    for pause, wanted in steps:
        now += abs(pause)
        starts = min(wanted, rate.room(full_at, now))
        full_at = rate.after(full_at, now, starts)
        taken += starts
        assert taken <= rate.starts + (now - begin) * rate.starts / (rate.seconds * 1_000_000)


@given(RATES, STEPS, st.integers(0, 10**13))
def test_a_clock_that_goes_back_costs_one_bucket_at_most(
    rate: Rate, steps: list[tuple[int, int]], back: int
) -> None:
    now, full_at = 10**15, 0
    for pause, wanted in steps:
        now += pause
        full_at = rate.after(full_at, now, min(wanted, rate.room(full_at, now)))
    now -= back
    full_at = rate.bounded(full_at, now)
    assert rate.room(full_at, now + rate.seconds * 1_000_000) >= rate.starts - 1
    assert rate.room(full_at, now + 2 * rate.seconds * 1_000_000) == rate.starts
