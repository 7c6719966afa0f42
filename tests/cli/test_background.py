"""`overnight run` where no server runs: it starts one, and everybody finds the same."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.config import server_file
from overnight.testing.signals import wait_until


@pytest.fixture
def here(tmp_path: Path) -> Iterator[dict[str, str]]:
    for name in ("home", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "OVERNIGHT_DATA_DIR": str(tmp_path / "data"), "OVERNIGHT_LISTEN": "127.0.0.1:0",
    }  # fmt: skip
    yield environment
    server = server_file.read(tmp_path / "data", environment)
    if server is not None:
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: not alive(server.pid), within=60, every=0.02, what="the server has ended")
        assert not server_file.path(tmp_path / "data", environment).exists()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def started(here: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "overnight", *arguments],
        env=here, cwd=here["HOME"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def test_two_runs_at_once_start_one_server(here: dict[str, str]) -> None:
    asked = [started(here, "run", f"goal {n}", "-b", "echo", "-m", "oneshot", "--json") for n in range(2)]
    for status, out, err in map(done, asked):
        assert status == 0, err
        events = [json.loads(line) for line in out.splitlines()]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["type"] == "run.completed"
    status, out, _ = done(started(here, "ls", "--json"))
    assert (status, {json.loads(line)["goal"] for line in out.splitlines()}) == (0, {"goal 0", "goal 1"})
    second = done(started(here, "up"))
    assert second[0] == 3
    assert "holds" in second[2]


def test_a_server_that_cannot_start_says_why(here: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, out, err = done(started(here | {"OVERNIGHT_LISTEN": address}, "run", "goal", "-b", "echo"))
    assert (status, out) == (1, "")
    assert "cannot listen" in err
    assert "server.log" in err


def test_doctor_looks_without_a_server(here: dict[str, str]) -> None:
    status, out, err = done(started(here, "doctor", "--json"))
    assert status == 0, err
    assert {"sqlite", "database", "disk"} <= {json.loads(line)["name"] for line in out.splitlines()}
    assert "no server runs" in err
