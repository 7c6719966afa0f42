"""Completion patterns, limits and the additions to a log."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.completion import Pattern, find_completion
from overnight.domain.limits import nearly_spent, spending, spent, turns_used_up
from overnight.domain.spec import LimitsSpec
from overnight.domain.values import Completion, Stats, Usage
from overnight.engine.telemetry.logs import added
from overnight.errors import InvalidPattern


@pytest.mark.parametrize(
    "pattern", ["(", "(?=a)", r"(a)\1", "[", "a{5000}", "(?<!x)y", "((a{100}){100}){100}"]
)
def test_bad_patterns_say_what_is_wrong(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidPattern) as refused:
        Pattern(pattern)
    assert refused.value.mend
    assert "b'" not in refused.value.detail
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pattern", ["", "x*", ".*", "^", "$", "(a|)"])
def test_patterns_that_match_nothing_at_all_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidPattern, match="empty line"):
        Pattern(pattern)


def test_a_pattern_is_matched_per_line_in_added_lines_and_in_the_message() -> None:
    pattern = Pattern(r"^STATUS: DONE$")
    assert find_completion(pattern, added=["x", "STATUS: DONE"], scan_lines=50, message="") == Completion(
        by="pattern", line="STATUS: DONE"
    )
    found = find_completion(pattern, added=[], scan_lines=50, message="well\nSTATUS: DONE\n")
    assert found is not None
    assert (
        find_completion(pattern, added=["STATUS: DONE not"], scan_lines=0, message="it is STATUS: DONE")
        is None
    )
    assert find_completion(None, added=["STATUS: DONE"], scan_lines=0, message="STATUS: DONE") is None


def test_only_the_last_lines_are_scanned_and_nought_means_all() -> None:
    lines = ["DONE", *["x"] * 10]
    assert find_completion(Pattern("DONE"), added=lines, scan_lines=10, message="") is None
    assert find_completion(Pattern("DONE"), added=lines, scan_lines=11, message="") is not None
    assert find_completion(Pattern("DONE"), added=lines, scan_lines=0, message="") is not None


def test_no_pattern_is_slow() -> None:
    start = time.process_time()
    assert Pattern("(x+x+)+(x+x+)+y").find(["x" * 1_000_000] * 50) is None
    assert time.process_time() - start < 2


def _stats(tokens: int = 0, cost: float | None = None, wall_ms: int = 0, turns: int = 0) -> Stats:
    return Stats(turns=turns, usage=Usage(input=tokens, cost_usd=cost), wall_ms=wall_ms)


def test_what_is_spent_is_the_budget_that_is_spent_most() -> None:
    limits = LimitsSpec(tokens=100, cost_usd=1.0, wall_clock_s=10, turns=2)
    assert spent(limits, _stats(99, 0.99, 9999)) is None
    found = spent(limits, _stats(100, 3.0, 10_000))
    assert found is not None
    assert (found.budget, str(found)) == ("cost_usd", "3 of 1 USD")
    assert found.to_json() == {"budget": "cost_usd", "used": 3.0, "limit": 1.0}
    assert spent(LimitsSpec(), _stats(10**12, 10.0**6, 10**12)) is None
    assert spending(LimitsSpec(tokens=5), _stats(3))[0].used == 3
    assert turns_used_up(limits, _stats(turns=2))
    assert not turns_used_up(limits, _stats(turns=1))
    assert not turns_used_up(LimitsSpec(turns=None), _stats(turns=10**6))


def test_a_budget_is_nearly_spent_once() -> None:
    limits = LimitsSpec(tokens=100, wall_clock_s=10)
    assert [s.budget for s in nearly_spent(limits, _stats(79), _stats(80))] == ["tokens"]
    assert nearly_spent(limits, _stats(80), _stats(90)) == ()
    assert nearly_spent(limits, _stats(10), _stats(100)) == ()


@pytest.mark.parametrize(
    "before, after, lines",
    [
        ("", "", []),
        ("a\n", "a\nb\n", ["b"]),
        ("a\nDO", "a\nDONE\n", ["DONE"]),
        ("old DONE\n", "old DONE\n", []),
        ("DONE", "DONE\nmore\n", ["more"]),
        ("DONE", "DONE\r\nmore\r\n", ["more"]),
        ("x\nDONE\n", "rewritten\nDONE\n", ["rewritten"]),
        ("x\nDONE\n", "DONE\nDONE\n", ["DONE"]),
        ("a\nb\n", "", []),
        ("a\nb\nc\n", "c\na\n", []),
    ],
)
def test_only_new_lines_count_also_when_the_log_is_rewritten(
    before: str, after: str, lines: list[str]
) -> None:
    assert list(added(before, after).lines) == lines


@given(st.text(st.sampled_from("ab\n"), max_size=12), st.text(st.sampled_from("ab\n"), max_size=12))
def test_growth_gives_what_was_appended(before: str, more: str) -> None:
    found = added(before, before + more)
    assert found.size == len(more)
    begun = before[before.rfind("\n") + 1 :]
    whole = (begun + more).split("\n")
    if not whole[-1]:
        whole.pop()
    expected = whole[1:] if begun and more.startswith("\n") else whole
    assert list(found.lines) == (expected if more else [])
