"""The rule by which another server of WebSockets would be taken."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import socket_gate

SOUND: dict[str, Any] = {
    "p99_latency_ms": 10.0, "throughput_msgs_per_sec": 1000.0, "reconnect_success_rate": 100.0, "crash_count": 0,
    "leak_count": 0, "ordering_violations": 0, "backpressure_failures": 0,
}  # fmt: skip
FAST = SOUND | {"p99_latency_ms": 8.0}


def judge(tmp_path: Path, candidate: object, baseline: object = SOUND) -> int:
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps({"baseline": baseline, "candidate": candidate}))
    return socket_gate.main([str(file)])


@pytest.mark.parametrize(
    "change",
    [
        {"p99_latency_ms": 8.0}, {"p99_latency_ms": 0.0}, {"p99_latency_ms": 99.0, "throughput_msgs_per_sec": 1250.0},
        {"p99_latency_ms": 8.0, "throughput_msgs_per_sec": 1.0}, {"p99_latency_ms": 1, "reconnect_success_rate": 99.9},
    ],
)  # fmt: skip
def test_go(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, float]) -> None:
    assert judge(tmp_path, SOUND | change) == 0
    assert capsys.readouterr().out == "GO\n"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"p99_latency_ms": 8.01}, "not faster"),
        ({"p99_latency_ms": 10.0, "throughput_msgs_per_sec": 1249.9}, "not faster"),
        ({"p99_latency_ms": 1.0, "reconnect_success_rate": 99.89}, "reconnect_success_rate"),
        *[({"p99_latency_ms": 1.0, name: 1}, name) for name in socket_gate.COUNTS],
    ],
)
def test_no_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, float], words: str
) -> None:
    assert judge(tmp_path, SOUND | change) == 1
    said = capsys.readouterr().out
    assert said.startswith("NO-GO\n")
    assert words in said
    assert ("not sound" in said, "not faster" in said) == ("not faster" not in words, "not faster" in words)


def test_both_halves_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(tmp_path, SOUND | {"crash_count": 2}) == 1
    said = capsys.readouterr().out
    assert "not sound: crash_count is 2" in said
    assert "not faster" in said


@pytest.mark.parametrize("side", ["baseline", "candidate"])
@pytest.mark.parametrize("value", [None, "10", True, -1, float("nan")])
@pytest.mark.parametrize("name", [*SOUND])
def test_a_metric_that_is_missing_or_no_number(tmp_path: Path, side: str, value: object, name: str) -> None:
    broken = {key: one for key, one in SOUND.items() if key != name or value is not None}
    if value is not None:
        broken[name] = value
    assert judge(tmp_path, *((FAST, broken) if side == "baseline" else (broken, SOUND))) == 2


@pytest.mark.parametrize("name", ["p99_latency_ms", "throughput_msgs_per_sec"])
def test_a_baseline_that_nothing_compares_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert judge(tmp_path, FAST, SOUND | {name: 0}) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"baseline": 1, "candidate": 2}', "no json"])
def test_files_that_hold_no_metrics(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    assert socket_gate.main([str(tmp_path / "metrics.json")]) == 2


def test_usage_and_a_missing_file(tmp_path: Path) -> None:
    assert socket_gate.main([]) == 2
    assert socket_gate.main(["a", "b"]) == 2
    assert socket_gate.main([str(tmp_path / "missing.json")]) == 2


def test_the_command_says_it_by_its_exit_status(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps({"baseline": SOUND, "candidate": FAST}))
    root = Path(socket_gate.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "bench.socket_gate", str(file)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "GO\n")
