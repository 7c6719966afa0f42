"""The server of a data directory, seen from outside: found, asked to make way, ended, waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from overnight.client import Client
from overnight.clock import SystemClock
from overnight.compose.hosts import WORKER_LOCK
from overnight.compose.upgrade.program import Program
from overnight.config import server_file
from overnight.errors import DataInUse, OvernightError, StartRefused
from overnight.stores.sql.lock import LOCK_FILE, DataLock

EVERY_S: Final = 0.02
MAKE_WAY_WITHIN_S: Final = 20.0
"""A server that was asked for a handover and is still there after this is killed; its agents go on all the same."""
END_WITHIN_S: Final = 5.0
CLOCK_S: Final = 2.0
"""How far the start of a process may be off, as the system tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server announces itself, and what certificate it shows."""

    data_dir: Path
    environment: Mapping[str, str] = field(repr=False)
    certificate: Path | None = None

    def announced(self) -> server_file.ServerFile | None:
        """The living server."""
        return server_file.read(self.data_dir, self.environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One `overnight up`. `process` is None for one that an interrupted upgrade has ended already."""

    program: Program
    arguments: tuple[str, ...]
    version: str
    process: psutil.Process | None = field(default=None, repr=False)
    managed: bool = False
    """A service manager has started it, and would not know of one that was started otherwise."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process is not None and _alive(self.process)


def find(place: Place) -> Server | None:
    """The server that has announced itself for the data; None when there is none. Raises StartRefused."""
    announced = place.announced()
    if announced is None:
        return None
    try:
        process = psutil.Process(announced.pid)
        words, variables, cwd = process.cmdline(), process.environ(), Path(process.cwd())
    except psutil.Error as error:
        raise StartRefused(f"the server (process {announced.pid}) cannot be looked at: {error}") from None
    if "up" not in words:
        raise StartRefused(f"process {announced.pid} serves the data, and is no `overnight up`")
    at = words.index("up")
    return Server(
        program=Program(prefix=tuple(words[:at]), cwd=cwd, environment=variables),
        arguments=tuple(words[at:]),
        version=announced.version,
        process=process,
        managed=variables.get("SYSTEMD_EXEC_PID") == str(announced.pid),
    )


def make_way(server: Server) -> None:
    """Let the server hand over: it ends, and its agents go on. When this returns, it is gone."""
    if server.process is not None:
        _end(server.process, signal.SIGUSR2, MAKE_WAY_WITHIN_S)


def end_newcomer(
    place: Place, started: subprocess.Popen[bytes] | None, *, besides: int, since: float
) -> None:
    """End whatever was started on the data `since` (seconds of the epoch), and leave its agents alone."""
    if started is not None and started.poll() is None:
        _end(psutil.Process(started.pid), signal.SIGUSR2, END_WITHIN_S)
        started.wait()
    announced = place.announced()
    holders = (_holder(place.data_dir, file) for file in (LOCK_FILE, WORKER_LOCK))
    for pid in (announced.pid if announced else None, *holders):
        if pid is not None and pid not in {besides, os.getpid()}:
            with suppress(psutil.NoSuchProcess):
                found = psutil.Process(pid)
                if (
                    found.create_time() > since - CLOCK_S
                ):  # a worker beside the server has nothing to do with it
                    _end(found, signal.SIGUSR2, END_WITHIN_S)


def until_ready(
    place: Place,
    *,
    version: str,
    besides: int,
    within_s: float,
    started: subprocess.Popen[bytes] | None = None,
) -> str:
    """Wait until a server of that version, other than the process `besides`, takes work; its address.

    Raises StartRefused with what was seen last when the time is over, or when the process that was started has ended.
    """
    seen = "no server has announced itself"
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        announced = place.announced()
        if announced is not None and announced.pid != besides:
            if announced.version != version:
                raise StartRefused(
                    f"the server that came up is version {announced.version or 'unknown'}, not {version}"
                )
            seen = _unready(announced, place.certificate)
            if not seen:
                return announced.url
        if started is not None and started.poll() is not None:
            raise StartRefused(f"it ended with status {started.returncode}")
        time.sleep(EVERY_S)
    raise StartRefused(f"it was not ready within {within_s:.0f} s: {seen}")


def _unready(announced: server_file.ServerFile, certificate: Path | None) -> str:
    """Why it takes no work; empty when it does."""

    async def ask() -> bool:
        async with Client(announced.url, announced.token, certificate=certificate) as client:
            return await asyncio.wait_for(client.ready(), 10)

    try:
        return "" if asyncio.run(ask()) else "it says that it is not ready"
    except OvernightError as error:
        return error.detail
    except TimeoutError:
        return "it did not answer within 10 s"


def _holder(data_dir: Path, file: str) -> int | None:
    """The process that holds the data without having said where it answers."""
    if not (data_dir / file).exists():
        return None
    lock = DataLock(data_dir, SystemClock(), file=file)
    try:
        lock.acquire()
    except DataInUse as error:
        pid = error.extra.get("pid")
        return pid if isinstance(pid, int) else None
    lock.release()
    return None


def _end(process: psutil.Process, number: signal.Signals, within_s: float) -> None:
    """The signal, then kill -9 when it is still there. A stopped process hears only the second."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
        if not _wait(lambda: not _alive(process), within_s):
            process.kill()
            if not _wait(lambda: not _alive(process), within_s):
                raise StartRefused(f"process {process.pid} does not end")


def _wait(there: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not there():
        if time.monotonic() >= deadline:
            return False
        time.sleep(EVERY_S)
    return True


def _alive(process: psutil.Process) -> bool:
    """A zombie is nobody: whoever started it has not asked for its status yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_command(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """A command of the operator's. Raises StartRefused with what it said when it fails."""
    try:
        done = subprocess.run(
            list(words), env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise StartRefused(f"{' '.join(words)}: {error}") from None
    if done.returncode:
        raise StartRefused(
            f"{' '.join(words)}: status {done.returncode} {done.stderr.strip()[-300:]}".rstrip()
        )
