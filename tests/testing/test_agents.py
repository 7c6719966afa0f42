"""The sample agent reaches its goal from whatever state the workspace is in; the scripted agent does as it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overnight.testing.agents import SAMPLE_AGENT, SCRIPTED_AGENT
from overnight.testing.sample_workspace import copy_to
from overnight.testing.signals import wait_until


def sample_turn(workspace: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", str(SAMPLE_AGENT)],
        cwd=workspace,
        input="the goal",
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stdout.splitlines()


def sentinels(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line)["__overnight__"] for line in lines if line.startswith('{"__overnight__"')]


def test_the_sample_agent_needs_three_turns(tmp_path: Path) -> None:
    workspace = copy_to(tmp_path / "w")
    stop = workspace / ".overnight" / "stop"
    turns = [sentinels(sample_turn(workspace)) for _ in range(2)]
    assert not stop.exists()
    last = sample_turn(workspace)
    assert stop.is_file()
    assert any(line.startswith("DONE.") for line in last)
    assert [s["type"] for s in turns[0]] == [
        "file.read", "file.written", "tests.started", "tests.completed", "log.updated", "usage.recorded",
    ]  # fmt: skip
    assert turns[0][3] | {"duration_ms": 0} == {
        "type": "tests.completed", "command": "python -m unittest discover -s tests -t .",
        "exit_code": 1, "duration_ms": 0, "passed": 2, "failed": 1, "skipped": 0,
    }  # fmt: skip
    assert next(s for s in sentinels(last) if s["type"] == "tests.completed")["passed"] == 5
    log = (workspace / "WORKLOG.md").read_text()
    for heading in ("Completed", "Current status", "Next steps", "Tests", "Blockers"):
        assert log.count(f"## {heading}\n") == 3


def test_the_sample_agent_does_a_lost_turn_again(tmp_path: Path) -> None:
    workspace = copy_to(tmp_path / "w")
    sample_turn(workspace)
    (workspace / "tests" / "test_slugs.py").unlink()
    sample_turn(workspace)
    assert (workspace / "tests" / "test_slugs.py").is_file()
    assert not (workspace / "textkit" / "slugs.py").exists()


def test_the_sample_agent_says_when_the_workspace_is_not_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SAMPLE_AGENT)],
        cwd=tmp_path,
        input="",
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no textkit folder" in done.stdout


def scripted(moves: list[Any], *extra: str, cwd: Path, text: str = "") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, str(SCRIPTED_AGENT), json.dumps(moves), *extra]
    return subprocess.run(argv, cwd=cwd, input=text.encode(), capture_output=True, check=False)


def test_the_scripted_agent_prints_lines_halves_and_bytes(tmp_path: Path) -> None:
    moves = [
        ["print", "one $N"], {"lines": {"count": 3, "text": "l$N"}}, ["stderr", "oops"], ["hex", "ff00"],
        ["half", "no end"], ["exit", 3],
    ]  # fmt: skip
    done = scripted(moves, cwd=tmp_path)
    assert done.stdout == b"one 1\nl2\nl3\nl4\n\xff\x00no end"
    assert done.stderr == b"oops\n"
    assert done.returncode == 3


def test_the_scripted_agent_reads_files_and_long_lines(tmp_path: Path) -> None:
    moves = [
        ["read_prompt"],
        ["echo_prompt"],
        ["long_line", 200_000],
        {"write": {"path": "d/f", "text": "x"}},
    ]
    done = scripted(moves, cwd=tmp_path, text="the prompt")
    assert done.stdout == b"the prompt\n" + b"x" * 200_000 + b"\n"
    assert (tmp_path / "d" / "f").read_text() == "x"


def test_the_scripted_agent_counts_turns_in_its_state_file(tmp_path: Path) -> None:
    script = [[["print", "turn $TURN"]], [["print", "second"]]]
    outs = [scripted(script, "--state", str(tmp_path / "s"), cwd=tmp_path).stdout for _ in range(3)]
    assert outs == [b"turn 1\n", b"second\n", b"second\n"]


def test_the_scripted_agent_leaves_a_daemon_that_ignores_sigterm(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert scripted([{"daemon": {"pid_file": str(pid_file)}}], cwd=tmp_path).returncode == 0
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text()))
    try:
        os.kill(pid, signal.SIGTERM)
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        assert os.getsid(pid) != os.getsid(0)
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_the_scripted_agent_outlives_sigterm_when_told_to(tmp_path: Path) -> None:
    moves = [["ignore"], {"pid": str(tmp_path / "pid")}, ["forever"]]
    with subprocess.Popen([sys.executable, str(SCRIPTED_AGENT), json.dumps(moves)]) as process:
        wait_until((tmp_path / "pid").exists)
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
