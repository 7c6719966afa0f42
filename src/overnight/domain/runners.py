"""Recognises the closing lines of common test runners, so that their results become `tests.completed`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from overnight.domain.values import TestStats


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerResult:
    """What a runner said at its end."""

    runner: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    duration_ms: int | None = None

    @property
    def stats(self) -> TestStats:
        """The counts alone."""
        return TestStats(passed=self.passed, failed=self.failed, skipped=self.skipped)

    def joined(self, other: RunnerResult) -> RunnerResult:
        """Two parts of one invocation (packages, crates) together."""
        times = [part.duration_ms for part in (self, other) if part.duration_ms is not None]
        return RunnerResult(
            runner=self.runner,
            passed=self.passed + other.passed,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
            duration_ms=sum(times) if times else None,
        )


MAYBE: Final = re.compile(
    rb"pass|PASS|fail|FAIL|skip|SKIP|Ran \d|\bOK\b|\bok\b|test result|Tests:|Tests  |tests \d|todo|cancelled"
    rb"|duration_ms|tests ran"
)
"""A cheap look at a line of raw output: no line without a match means anything to `RunnerWatch`."""

_PART: Final = re.compile(
    r"(\d{1,9}) (passed|failed|skipped|errors?|deselected|xfailed|xpassed|warnings?|todo|total)"
)
_PYTEST: Final = re.compile(
    r"(?:=+ )?(?P<parts>(?:no tests ran|\d+ \w+)(?:, \d+ \w+)*) in (?P<time>[\d.]+)s(?: \([\d:, day]+\))?(?: =+)?"
)
_UNITTEST_RAN: Final = re.compile(r"Ran (\d{1,9}) tests? in ([\d.]+)s")
_UNITTEST_END: Final = re.compile(r"(OK|FAILED)(?: \(([a-z0-9=, ]+)\))?")
_CARGO: Final = re.compile(
    r"test result: \w+\. (\d{1,9}) passed; (\d{1,9}) failed; (\d{1,9}) ignored;.*?(?:finished in ([\d.]+)s)?"
)
_GO_TEST: Final = re.compile(r"--- (PASS|FAIL|SKIP): \S+ \([\d.]+s\)")
_GO_PACKAGE: Final = re.compile(
    r"(ok|FAIL)\s+\S+\s+(?:([\d.]+)s|\(cached\)|\[build failed\]|\[setup failed\]).*"
)
_NODE: Final = re.compile(r"[ℹ#] (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)")
_JEST: Final = re.compile(r"Tests:\s+((?:\d+ \w+, )*\d+ total)")
_VITEST: Final = re.compile(r"Tests\s\s+((?:\d+ \w+(?: \| )?)+) \(\d+\)")
_BUN: Final = re.compile(r"(\d{1,9}) (pass|fail|skip|todo)")
_BUN_END: Final = re.compile(r"Ran (\d{1,9}) tests? across \d+ files?\. \[([\d.]+)(m?s)\]")


class RunnerWatch:
    """Reads lines and gives a result when a runner has closed. Results in parts are joined until `end`."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._open: RunnerResult | None = None
        self._ran: tuple[int, int] | None = None

    @property
    def pending(self) -> bool:
        """Whether `end` would give a result."""
        return self._open is not None

    def line(self, line: str) -> RunnerResult | None:
        """One line without escapes; the result that it closes."""
        text = line.strip()
        if not text or len(text) > 400:
            return None
        for read in (self._pytest, self._unittest, self._parts, self._node, self._javascript, self._bun):
            if found := read(text):
                return found
        return None

    def end(self) -> RunnerResult | None:
        """The output is over, or has been quiet for a while: the result of a runner that closes part by part."""
        found, self._open = self._open, None
        self._counts.clear()
        return found

    def _pytest(self, text: str) -> RunnerResult | None:
        match = _PYTEST.fullmatch(text)
        if match is None:
            return None
        counts = _counts(match["parts"])
        if not counts and match["parts"] != "no tests ran":
            return None
        return RunnerResult(
            runner="pytest",
            passed=counts.get("passed", 0) + counts.get("xpassed", 0),
            failed=counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0),
            skipped=counts.get("skipped", 0) + counts.get("xfailed", 0),
            duration_ms=_ms(match["time"]),
        )

    def _unittest(self, text: str) -> RunnerResult | None:
        if ran := _UNITTEST_RAN.fullmatch(text):
            self._ran = (int(ran[1]), _ms(ran[2]) or 0)
            return None
        if self._ran is None or not (end := _UNITTEST_END.fullmatch(text)):
            return None
        (total, duration), self._ran = self._ran, None
        named = dict(part.split("=") for part in (end[2] or "").split(", ") if part.count("=") == 1)
        counts = {name: int(value) for name, value in named.items() if value.isdigit()}
        failed = sum(counts.get(name, 0) for name in ("failures", "errors", "unexpected successes"))
        skipped = counts.get("skipped", 0) + counts.get("expected failures", 0)
        return RunnerResult(
            runner="unittest",
            passed=max(total - failed - skipped, 0),
            failed=failed,
            skipped=skipped,
            duration_ms=duration,
        )

    def _parts(self, text: str) -> RunnerResult | None:
        """Cargo and Go close once for each crate or package."""
        if cargo := _CARGO.fullmatch(text):
            passed, failed, skipped = (int(cargo[n]) for n in (1, 2, 3))
            part = RunnerResult(
                runner="cargo", passed=passed, failed=failed, skipped=skipped, duration_ms=_ms(cargo[4])
            )
            return self._join(part)
        if case := _GO_TEST.fullmatch(text):
            self._counts[case[1]] = self._counts.get(case[1], 0) + 1
        elif package := _GO_PACKAGE.fullmatch(text):
            return self._join(self._go(package[2], ok=package[1] == "ok"))
        return None

    def _go(self, seconds: str | None, *, ok: bool) -> RunnerResult:
        """A package; without `-v` only failing tests are named, so a passing package counts as one."""
        passed, failed, skipped = (self._counts.pop(name, 0) for name in ("PASS", "FAIL", "SKIP"))
        if ok and not passed + skipped:
            passed = 1
        if not ok and not failed:
            failed = 1
        return RunnerResult(
            runner="go", passed=passed, failed=failed, skipped=skipped, duration_ms=_ms(seconds)
        )

    def _join(self, part: RunnerResult) -> RunnerResult | None:
        before = self._open
        if before is None or before.runner == part.runner:
            self._open = before.joined(part) if before else part
            return None
        self._open = part
        return before

    def _node(self, text: str) -> RunnerResult | None:
        match = _NODE.fullmatch(text)
        if match is None:
            return None
        if match[1] != "duration_ms":
            self._counts["node " + match[1]] = int(float(match[2]))
            return None
        if "node tests" not in self._counts:
            return None
        get = {name: self._counts.pop("node " + name, 0) for name in _NODE_NAMES}
        return RunnerResult(
            runner="node",
            passed=get["pass"],
            failed=get["fail"] + get["cancelled"],
            skipped=get["skipped"] + get["todo"],
            duration_ms=int(float(match[2])),
        )

    def _javascript(self, text: str) -> RunnerResult | None:
        """Jest and Vitest name the time on a later line; the counts are given as soon as they are known."""
        if match := _JEST.fullmatch(text):
            return _from_counts("jest", _counts(match[1]))
        if match := _VITEST.fullmatch(text):
            return _from_counts("vitest", _counts(match[1]))
        return None

    def _bun(self, text: str) -> RunnerResult | None:
        if match := _BUN.fullmatch(text):
            self._counts["bun " + match[2]] = int(match[1])
            return None
        match = _BUN_END.fullmatch(text)
        if match is None:
            return None
        get = {name: self._counts.pop("bun " + name, 0) for name in ("pass", "fail", "skip", "todo")}
        duration = _ms(match[2]) if match[3] == "s" else int(float(match[2]))
        found = RunnerResult(
            runner="bun", passed=get["pass"], failed=get["fail"], skipped=get["skip"] + get["todo"]
        )
        return replace(found, duration_ms=duration)


def results(text: str) -> list[RunnerResult]:
    """All results in a whole output, for instance that of a command."""
    watch = RunnerWatch()
    found = [result for line in text.splitlines() if (result := watch.line(line))]
    last = watch.end()
    return [*found, last] if last else found


_NODE_NAMES: Final = ("tests", "suites", "pass", "fail", "cancelled", "skipped", "todo")


def _counts(text: str) -> dict[str, int]:
    return {name: int(number) for number, name in _PART.findall(text)}


def _from_counts(runner: str, counts: Mapping[str, int]) -> RunnerResult:
    return RunnerResult(
        runner=runner,
        passed=counts.get("passed", 0),
        failed=counts.get("failed", 0),
        skipped=counts.get("skipped", 0) + counts.get("todo", 0),
    )


def _ms(seconds: str | None) -> int | None:
    try:
        return round(float(seconds) * 1000) if seconds else None
    except ValueError:
        return None
