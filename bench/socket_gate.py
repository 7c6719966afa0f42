"""Whether another server of WebSockets is worth the change: `python -m bench.socket_gate metrics.json`.

The file holds the same seven metrics of a `baseline` and of a `candidate`, as `bench.socket_candidates` writes it. Exit
0: go; 1: no-go, and which half of the rule says so; 2: there is nothing to judge.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import orjson

P99: Final = 0.80
"""A candidate is faster where its p99 is at most so much of the baseline's,"""
THROUGHPUT: Final = 1.25
"""or where it carries at least so many times as many messages;"""
RECONNECTS: Final = 99.9
"""and it is sound where at least so many per cent of the clients come back after a cut,"""
COUNTS: Final = ("crash_count", "leak_count", "ordering_violations", "backpressure_failures")
"""and none of these has happened."""


class NothingToJudge(Exception):
    """The metrics are missing, or not to be compared with."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What was measured of one server."""

    p99_latency_ms: float
    throughput_msgs_per_sec: float
    reconnect_success_rate: float
    """Per cent."""
    crash_count: float
    leak_count: float
    ordering_violations: float
    backpressure_failures: float


def read(path: Path) -> tuple[Metrics, Metrics]:
    """Baseline and candidate. Raises NothingToJudge."""
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise NothingToJudge(f"{path} cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise NothingToJudge(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise NothingToJudge(f"{path} holds no object")
    baseline, candidate = (_metrics(document, side) for side in ("baseline", "candidate"))
    for name in ("p99_latency_ms", "throughput_msgs_per_sec"):
        if getattr(baseline, name) <= 0:
            raise NothingToJudge(f"baseline.{name} is {getattr(baseline, name)}: nothing compares with that")
    return baseline, candidate


def _metrics(document: Mapping[str, object], side: str) -> Metrics:
    given = document.get(side)
    found = {
        field.name: given.get(field.name) if isinstance(given, dict) else None for field in fields(Metrics)
    }
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise NothingToJudge(f"{side}.{name} is missing, or no number from 0")
    return Metrics(**found)  # type: ignore[arg-type]


def judged(baseline: Metrics, candidate: Metrics) -> list[str]:
    """What speaks against the candidate; empty: go."""
    against = [
        f"not sound: {name} is {getattr(candidate, name):g}, not 0"
        for name in COUNTS
        if getattr(candidate, name) != 0
    ]
    if candidate.reconnect_success_rate < RECONNECTS:
        against.append(
            f"not sound: reconnect_success_rate is {candidate.reconnect_success_rate:g}, below {RECONNECTS}"
        )
    latency = candidate.p99_latency_ms / baseline.p99_latency_ms
    throughput = candidate.throughput_msgs_per_sec / baseline.throughput_msgs_per_sec
    if latency > P99 and throughput < THROUGHPUT:
        against.append(
            f"not faster: p99 is {latency:.2f} × (at most {P99} ×) and throughput {throughput:.2f} × "
            f"(at least {THROUGHPUT} ×) the baseline's"
        )
    return against


def main(arguments: list[str]) -> int:
    """The exit status."""
    if len(arguments) != 1:
        print("usage: python -m bench.socket_gate metrics.json", file=sys.stderr)
        return 2
    try:
        against = judged(*read(Path(arguments[0])))
    except NothingToJudge as error:
        print(f"nothing to judge: {error}", file=sys.stderr)
        return 2
    print("\n".join(["NO-GO", *against]) if against else "GO")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
