"""Closing lines of test runners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.runners import MAYBE, RunnerWatch, results

Case = tuple[str, int, int, int, int | None]
GO = """\
=== RUN TestA
--- PASS: TestA (0.00s)
--- FAIL: TestB (0.00s)
    x_test.go:3: no
--- SKIP: TestC (0.00s)
FAIL
FAIL\texample.com/a\t0.004s
ok  \texample.com/b\t1.250s
?   \texample.com/c\t[no test files]
FAIL
"""
CARGO = """\
running 2 tests
test a ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s

   Doc-tests x

running 1 test

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
"""
TAP = "# tests 1\n# suites 0\n# pass 1\n# fail 0\n# cancelled 0\n# skipped 0\n# todo 0\n# duration_ms 3.9"
OUTPUTS: list[tuple[str, Case]] = [
    ("....\n===== 3 passed, 1 failed, 2 skipped, 1 warning in 1.50s =====\n", ("pytest", 3, 1, 2, 1500)),
    ("5 passed in 0.01s\n", ("pytest", 5, 0, 0, 10)),
    ("= 1 failed, 2 passed, 1 xfailed, 3 errors in 70.20s (0:01:10) =", ("pytest", 2, 4, 1, 70200)),
    ("=== no tests ran in 0.00s ===", ("pytest", 0, 0, 0, 0)),
    ("...\n----\nRan 3 tests in 0.002s\n\nOK\n", ("unittest", 3, 0, 0, 2)),
    ("Ran 5 tests in 1s\n\nFAILED (failures=1, errors=1, skipped=1)\n", ("unittest", 2, 2, 1, 1000)),
    ("Ran 4 tests in 0.100s\nOK (skipped=1, expected failures=1)", ("unittest", 2, 0, 2, 100)),
    (GO, ("go", 2, 1, 1, 1254)),
    ("ok  \texample.com/b\t(cached)\n", ("go", 1, 0, 0, None)),
    ("FAIL\texample.com/b [build failed]\n", ("go", 0, 1, 0, None)),
    (CARGO, ("cargo", 2, 1, 1, 300)),
    ("ℹ tests 4\nℹ suites 0\nℹ pass 2\nℹ fail 1\nℹ cancelled 0\nℹ skipped 1\nℹ todo 0\nℹ duration_ms 55.4\n",
     ("node", 2, 1, 1, 55)),
    (TAP, ("node", 1, 0, 0, 3)),
    ("Test Suites: 1 failed, 1 total\nTests:       1 failed, 2 skipped, 3 passed, 6 total\nTime:        1.2 s\n",
     ("jest", 3, 1, 2, None)),
    (" Test Files  1 failed | 1 passed (2)\n      Tests  1 failed | 4 passed | 2 skipped (7)\n   Duration  1.2s\n",
     ("vitest", 4, 1, 2, None)),
    (" 3 pass\n 1 fail\n 2 skip\n 5 expect() calls\nRan 6 tests across 1 file. [12.00ms]\n", ("bun", 3, 1, 2, 12)),
]  # fmt: skip


@pytest.mark.parametrize(
    "text, expected", OUTPUTS, ids=[f"{case[0]}-{n}" for n, (_, case) in enumerate(OUTPUTS)]
)
def test_each_runner(text: str, expected: Case) -> None:
    found = results(text)
    assert [(r.runner, r.passed, r.failed, r.skipped, r.duration_ms) for r in found] == [expected]


@pytest.mark.parametrize("text, _expected", OUTPUTS)
def test_the_cheap_look_lets_every_line_through_that_counts(text: str, _expected: Case) -> None:
    watch = RunnerWatch()
    found = [watch.line(line) for line in text.splitlines() if MAYBE.search(line.encode())]
    assert [*filter(None, found), *filter(None, [watch.end()])] == results(text)


@pytest.mark.parametrize(
    "text",
    ["all tests passed", "3 passed", "OK", "FAILED", "I think 3 passed in 5 minutes", "passed in 0.1s", "ok", "FAIL",
     "ℹ duration_ms 5", "Tests: none", "12 pass", "2 files in 0.1s", "we had 3 passed in 0.01s today"],
)  # fmt: skip
def test_talk_about_tests_is_no_result(text: str) -> None:
    assert results(text) == []


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    results(text)
