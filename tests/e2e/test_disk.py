"""Promise 7: with a full disk new work is refused, reads and cancels go on, and it recovers by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.e2e.conftest import Start

from overnight.testing.signals import wait_until


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_new_work_and_recovers(serve: Start, small_disk: Path) -> None:
    script = [["read_prompt"], ["pid", "agent.pid"], ["print", "hello"], ["forever"]]
    server = serve(
        {"slow": script, "quick": [["read_prompt"]]},
        root=small_disk,
        config="[storage]\nreserve_bytes = 8388608\n",
        environment={"OVERNIGHT_GRACE_S": "1"},
    )
    work = server.workspace()
    run = server.submit("slow", mode="oneshot", workspace=str(work))
    wait_until((work / "agent.pid").exists)
    server.until(run["id"], "running")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        file.write(b"x" * (free - 4 * 1024 * 1024))
    refused = server.http.post("/api/v1/runs", json={"goal": "x", "backend": "quick"})
    assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
    assert server.http.get("/api/v1/runs").status_code == 200
    assert server.events(run["id"])
    assert server.control(run["id"], "cancel").status_code == 202
    server.until(run["id"], "cancelled")
    ballast.unlink()
    again = server.submit("quick", mode="oneshot")
    server.until(again["id"], "completed")


def test_with_no_byte_left_runs_are_cancelled_and_doctor_answers(serve: Start, small_disk: Path) -> None:
    """Agents may fill the disk to its last byte: the room for what must go on was taken before."""
    server = serve(
        {"slow": [["read_prompt"], ["pid", "agent.pid"], ["forever"]], "quick": [["read_prompt"]]},
        root=small_disk,
        config="[storage]\nreserve_bytes = 8388608\n",
        environment={"OVERNIGHT_GRACE_S": "1"},
    )
    places = [server.workspace(name) for name in ("one", "two", "three")]
    runs = [server.submit("slow", mode="oneshot", workspace=str(place)) for place in places]
    wait_until(lambda: all((place / "agent.pid").exists() for place in places))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(small_disk).f_bavail == 0
    assert server.http.post("/api/v1/runs", json={"goal": "x", "backend": "quick"}).status_code == 507
    for run in runs:
        assert server.control(run["id"], "cancel").status_code == 202
    for run in runs:
        server.until(run["id"], "cancelled")
    report = server.http.get("/api/v1/doctor")
    assert (report.status_code, report.json()["status"]) == (200, "fail")
    ballast.unlink()
    server.until(server.submit("quick", mode="oneshot")["id"], "completed")
