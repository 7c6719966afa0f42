"""Ids say what they are of, sort by time, and nothing else passes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import InvalidId
from overnight.ids import check_id, new_host_id, new_run_id, new_session_id, new_token_id, new_worker_id

KINDS = {
    "run": new_run_id,
    "ses": new_session_id,
    "wrk": new_worker_id,
    "tok": new_token_id,
    "hst": new_host_id,
}


@pytest.mark.parametrize("prefix", KINDS)
@given(ms=st.integers(0, (1 << 48) - 1))
def test_an_id_passes_as_its_own_kind_alone(prefix: str, ms: int) -> None:
    text = KINDS[prefix](ms)
    assert len(text) == 30
    assert check_id(prefix, text) == text
    for other in KINDS.keys() - {prefix}:
        with pytest.raises(InvalidId):
            check_id(other, text)


@given(st.integers(0, (1 << 48) - 2))
def test_ids_sort_by_their_time(ms: int) -> None:
    assert new_run_id(ms) < new_run_id(ms + 1)


@given(st.text(max_size=40))
def test_other_text_is_no_id(text: str) -> None:
    with pytest.raises(InvalidId):
        check_id("run", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run_",
        "run_" + "8" + "0" * 25,
        "run_" + "0" * 25 + "u",
        "run_" + "0" * 26 + "\n",
        "RUN_" + "0" * 26,
    ],
)
def test_near_misses_are_no_ids(text: str) -> None:
    with pytest.raises(InvalidId):
        check_id("run", text)


def test_ids_of_one_moment_differ() -> None:
    assert len({new_run_id(0) for _ in range(10_000)}) == 10_000
