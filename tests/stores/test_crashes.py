"""What was acknowledged is there: after kill -9 at any moment, after failed writes and fsyncs, on a full disk."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.clock import SystemClock
from overnight.domain.event import Draft
from overnight.errors import DiskFull
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import admin
from overnight.stores.sql.library import driver
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage

CHILD = Path(__file__).with_name("writing_child.py")


def facts(output: str) -> list[dict[str, Any]]:
    """The whole lines that the child has said."""
    return [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]


def stored(path: Path, stream: int) -> dict[int, dict[str, Any]]:
    connection = driver().connect(str(path))
    rows = connection.execute(
        "SELECT seq, body FROM events WHERE stream_pk = ? ORDER BY seq", (stream,)
    ).fetchall()
    last = connection.execute("SELECT last_seq FROM streams WHERE pk = ?", (stream,)).fetchone()[0]
    connection.close()
    assert [seq for seq, _ in rows] == list(range(1, last + 1)), "the numbers have a gap"
    return {seq: json.loads(body) for seq, body in rows}


def expect_acknowledged(path: Path, said: list[dict[str, Any]]) -> None:
    stream = said[0]["stream"]
    there = stored(path, stream)
    for fact in said[1:]:
        if "seq" in fact:
            data = there[fact["seq"]]["data"]
            assert (data["by"], data["n"]) == (fact["by"], fact["n"])
    assert admin.check(path).problems == ()


def test_kill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path, seen = tmp_path / "overnight.db", list[dict[str, Any]]()
    for _ in range(4):
        child = subprocess.Popen([sys.executable, CHILD, path, "100000"], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(random.randint(1, 400))]
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.wait()
        child.stdout.close()
        said = facts("".join(lines) + rest)
        expect_acknowledged(path, said)
        seen += [fact for fact in said if "seq" in fact]
    assert len({fact["seq"] for fact in seen}) == len(seen), "a number was given twice"
    expect_acknowledged(path, [{"stream": 2}, *seen])


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"], check=False, capture_output=True
        ).returncode
        == 0
    )


needs_strace = pytest.mark.skipif(not _strace_works(), reason="strace is missing or may not trace here")


@needs_strace
@pytest.mark.parametrize(
    "fault",
    [
        "fsync:error=EIO:when=15+10",
        "pwrite64:error=EIO:when=150",
        "pwrite64:error=ENOSPC:when=150+40",
        "fsync:signal=SIGKILL:when=25",
        "pwrite64:signal=SIGKILL:when=333",
    ],
)
def test_a_failing_disk_is_told_and_loses_nothing_acknowledged(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "overnight.db"
    subprocess.run([sys.executable, CHILD, path, "1"], check=True, capture_output=True)
    call = fault.partition(":")[0]
    command = ["strace", "-f", "-qq", "-o", "/dev/null"]
    if "signal" not in fault:
        command.append("--seccomp-bpf")  # quicker, but it cannot send signals
    command += ["-e", f"trace={call}", "-e", f"inject={fault}"]
    child = subprocess.run(
        [*command, sys.executable, CHILD, path, "50"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    said = facts(child.stdout)
    assert said, child.stderr
    errors = {fact["error"] for fact in said if "error" in fact}
    if "SIGKILL" in fault:
        assert "closed" not in said[-1]
    else:
        assert said[-1] == {"closed": True}, child.stderr
        assert errors <= {"outcome_unknown", "disk_full", "unavailable"}
        assert errors, "nobody was told"
    expect_acknowledged(path, said)
    there = stored(path, said[0]["stream"])
    numbers = [(event["data"]["by"], event["data"]["n"]) for seq, event in there.items() if seq > 5]
    assert len(set(numbers)) == len(numbers), "a unit that was run again took place twice"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four mebibytes of disk."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root with CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.anyio
async def test_a_full_disk_refuses_writes_while_reads_go_on_and_recovers(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "overnight.db", SystemClock(), InprocNotifier())
    await store.start()
    stage = Stage(uow=store, notifier=InprocNotifier(), clock=ManualClock())
    run = await stage.run()
    free = store.free_bytes()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (free - 300_000))
    acknowledged, refused = 1, 0
    draft = Draft(type="output.recorded", data={"text": "x" * 20_000})
    while refused < 3 and acknowledged < 1000:
        results = await asyncio.gather(
            *(store.write(lambda tx: tx.events.append(run.pk, [draft], 0)) for _ in range(5)),
            return_exceptions=True,
        )
        assert all(isinstance(result, tuple | DiskFull) for result in results), results
        acknowledged += sum(isinstance(result, tuple) for result in results)
        refused += sum(isinstance(result, DiskFull) for result in results)
    assert refused >= 3
    mark = await store.read(lambda tx: tx.events.mark(run.pk))
    assert mark.last == acknowledged
    assert len(await store.read(lambda tx: tx.events.after(run.pk, 0, 2000))) == acknowledged
    ballast.unlink()
    (again,) = await store.write(lambda tx: tx.events.append(run.pk, [draft], 0))
    assert again.seq == acknowledged + 1
    await store.close()
    assert admin.check(small_disk / "overnight.db").problems == ()
