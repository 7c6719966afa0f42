"""What a start refuses, and what it leaves as it was."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from overnight.clock import SystemClock
from overnight.errors import DataInUse, StartRefused, Unavailable, UnsafeDatabase
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.connections import CYCLE_PAGES
from overnight.stores.sql.library import driver
from overnight.stores.sql.lock import DataLock
from overnight.stores.sql.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


def store_at(path: Path) -> SqliteStore:
    return SqliteStore(path, SystemClock(), InprocNotifier())


def old(version: str) -> Any:
    return SimpleNamespace(sqlite_version=version, sqlite_version_info=tuple(map(int, version.split("."))))


async def test_an_sqlite_that_can_corrupt_is_refused_by_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda _: old("3.51.2"))
    with pytest.raises(UnsafeDatabase, match=r"3\.51\.2.*3\.51\.3") as refused:
        store_at(tmp_path / "overnight.db")
    assert "pysqlite3" in refused.value.mend


def test_the_interpreters_library_is_taken_where_it_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    safe = old("3.52.0")

    def imported(name: str) -> Any:
        if name.startswith("pysqlite3"):
            raise ImportError(name)
        return safe

    monkeypatch.setattr(importlib, "import_module", imported)
    assert driver() is safe


async def test_the_settings_that_keep_the_promises(tmp_path: Path) -> None:
    store = store_at(tmp_path / "overnight.db")
    await store.start()

    def setting(name: str) -> Any:
        link = store._connections.open(writing=True)
        try:
            return link.raw.execute(f"PRAGMA {name}").fetchone()[0]
        finally:
            link.close()

    assert setting("journal_mode") == "wal"
    assert setting("synchronous") == 2
    assert setting("foreign_keys") == 1
    assert setting("mmap_size") == 0
    assert setting("busy_timeout") == 5000
    await store.close()
    assert (tmp_path.stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize("there", [True, False])
async def test_the_database_is_private_in_a_folder_that_is_not(tmp_path: Path, there: bool) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "overnight.db"
    if there:
        path.touch(0o644)
    store = store_at(path)
    await store.start()
    await store.write(lambda tx: tx.installation.put("k", "v"))
    files = [entry for entry in tmp_path.iterdir() if entry.name.startswith("overnight.db")]
    assert len(files) == 3
    assert [entry.stat().st_mode & 0o077 for entry in files] == [0, 0, 0]
    await store.close()


async def test_a_file_behind_a_link_keeps_its_mode(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch(0o644)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "overnight.db").symlink_to(other)
    store = store_at(tmp_path / "data" / "overnight.db")
    await store.start()
    await store.close()
    assert other.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("able", [True, False])
async def test_room_for_the_log_is_taken_in_advance_where_the_system_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    if not able:
        monkeypatch.delattr(os, "posix_fallocate")
    store = SqliteStore(tmp_path / "overnight.db", SystemClock(), InprocNotifier(), spare_bytes=1 << 20)
    await store.start()
    try:
        await store.write(lambda tx: tx.workers.all())
        taken = (tmp_path / "overnight.db-wal").stat().st_blocks * 512
        assert (taken >= CYCLE_PAGES * 4096 + (1 << 20)) is able
    finally:
        await store.close()


async def test_a_data_directory_that_cannot_be_written_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "server.lock").mkdir()
    with pytest.raises(StartRefused, match=r"server\.lock: Is a directory") as refused:
        await store_at(tmp_path / "overnight.db").start()
    assert "OVERNIGHT_DATA_DIR" in refused.value.mend


async def test_a_second_server_is_told_who_holds_the_data(tmp_path: Path) -> None:
    first, second = store_at(tmp_path / "overnight.db"), store_at(tmp_path / "overnight.db")
    await first.start()
    with pytest.raises(DataInUse, match=rf"process {os.getpid()} holds .* since 2") as refused:
        await second.start()
    assert refused.value.extra["pid"] == os.getpid()
    await first.close()
    await second.start()
    await second.close()


HOLDER = """
import sys, time
from pathlib import Path
from overnight.clock import SystemClock
from overnight.stores.sql.lock import DataLock
lock = DataLock(Path(sys.argv[1]), SystemClock())
lock.acquire()
import subprocess
heir = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
print(heir.pid, flush=True)
time.sleep(60)
"""


def test_a_stopped_holder_holds_and_its_children_do_not(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    heir = int(holder.stdout.readline())
    lock = DataLock(tmp_path, SystemClock())
    try:
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        with pytest.raises(DataInUse, match=rf"process {holder.pid} .*stopped"):
            lock.acquire()
        holder.kill()
        holder.wait()
        lock.acquire()
        lock.release()
        lock.release()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        os.kill(heir, signal.SIGKILL)


def prepared(path: Path, *statements: str) -> None:
    connection = driver().connect(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "overnight.db"
    store = store_at(path)
    await store.start()
    await store.close()
    prepared(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(UnsafeDatabase, match="9999"):
        await store_at(path).start()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if "backup" in entry.name] == []


@pytest.mark.parametrize("content", ["tables", "text"])
async def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "overnight.db"
    if content == "tables":
        prepared(path, "CREATE TABLE recipes (name TEXT)")
    else:
        path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(UnsafeDatabase):
        await store_at(path).start()
    if content == "text":
        assert path.read_bytes() == b"Dear diary, " * 1000
    lock = DataLock(tmp_path, SystemClock())
    lock.acquire()  # the refusal let go of the folder
    lock.release()


async def test_before_start_and_after_close_it_says_so(tmp_path: Path) -> None:
    store = store_at(tmp_path / "overnight.db")
    with pytest.raises(Unavailable):
        await store.write(lambda tx: tx.installation.put("a", "b"))
    await store.start()
    last = asyncio.ensure_future(store.write(lambda tx: tx.installation.put("a", "b")))
    await asyncio.sleep(0)
    await store.close()
    await last
    await store.close()
    with pytest.raises(Unavailable):
        await store.write(lambda tx: tx.installation.put("a", "c"))
    with pytest.raises(Unavailable):
        await store.read(lambda tx: tx.installation.get("a"))
    again = store_at(tmp_path / "overnight.db")
    await again.start()
    assert await again.read(lambda tx: tx.installation.get("a")) == "b"
    await again.close()


async def test_another_process_that_writes_for_long_is_waited_for_then_named(tmp_path: Path) -> None:
    store = store_at(tmp_path / "overnight.db")
    await store.start()
    blocker = driver().connect(str(tmp_path / "overnight.db"), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(store.write(lambda tx: tx.installation.put("a", "b")))
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    blocker.execute("COMMIT")
    blocker.close()
    await waiting
    await store.close()
