"""Child processes that are started, stopped, killed and started again; each is known by its pid, and ended by it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overnight.testing.signals import eventually

MARKER = re.compile(rb"(?:^|\0)OVERNIGHT_RUN_ID=(\w+)")
"""What every agent is born with, and what it leaves to whatever it starts."""


@dataclass(kw_only=True)
class Program:
    """One program that runs at most once at a time. What it prints is appended to `log`."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    user: int | None = None
    """Run as this user and group; None: as ourselves."""
    wrapper: Sequence[str] = ()
    """Put before `argv`, as `strace -f …` is."""
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    extra: dict[str, str] = field(default_factory=dict)
    """Added to the environment at the next start."""

    @property
    def pid(self) -> int:
        """Of the living or last process."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives (a stopped one does)."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; AssertionError when it runs."""
        assert not self.running, f"{self.name} runs"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.wrapper, *self.argv],
                env={**self.env, **self.extra},
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user is not None else None,
            )
        self.starts += 1

    def send(self, number: signal.Signals) -> None:
        """A signal to that process alone; nothing when it has ended."""
        if self.running:
            os.kill(self.pid, number)

    async def ended(self, within: float = 30) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None
        process = self.process
        await eventually(lambda: process.poll() is not None, within=within, what=f"{self.name} ends")
        assert process.returncode is not None
        return process.returncode

    async def kill(self) -> None:
        """End it with SIGKILL, and wait."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            await self.ended()

    async def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 20) -> None:
        """End it in order, or with SIGKILL when it does not end in time. Idempotent."""
        if not self.running:
            return
        self.send(signal.SIGCONT)
        self.send(number)
        try:
            await self.ended(within)
        except AssertionError:
            await self.kill()

    def words(self, most: int = 2000) -> str:
        """The end of what it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-most:] if self.log.exists() else ""


def processes_of(root: Path) -> list[int]:
    """Every process whose arguments, environment or folder name `root`."""
    needle, found = str(root).encode(), []
    for entry in _processes():
        texts = [_read(entry / "environ"), _read(entry / "cmdline"), _link(entry / "cwd")]
        if any(needle in text for text in texts) and not _is_zombie(entry):
            found.append(int(entry.name))
    return found


def processes_by_run() -> dict[str, list[int]]:
    """Every living process whose environment carries the marker of a run, by the run's id."""
    found: dict[str, list[int]] = {}
    for entry in _processes():
        marker = MARKER.search(_read(entry / "environ"))
        if marker and not _is_zombie(entry):
            found.setdefault(marker[1].decode(), []).append(int(entry.name))
    return found


def _processes() -> list[Path]:
    return [e for e in Path("/proc").iterdir() if e.name.isdigit() and int(e.name) != os.getpid()]


def kill_quietly(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal it if it is still there; whether it was."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _is_zombie(entry: Path) -> bool:
    return _read(entry / "stat").rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> bytes:
    try:
        return os.fsencode(path.readlink())
    except OSError:
        return b""
