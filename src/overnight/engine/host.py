"""Facts about this machine that decide what Overnight can promise here."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from overnight.engine.doctor import Finding, Look
from overnight.engine.policy import Storage


async def python() -> Finding:
    """The interpreter."""
    return Finding(name="python", status="ok", message=f"{platform.python_version()} at {sys.executable}")


async def system() -> Finding:
    """The kernel: what keepers can do."""
    words = f"{platform.system()} {platform.release()}"
    if platform.system() == "Linux":
        return Finding(name="system", status="ok", message=words)
    return Finding(
        name="system",
        status="warn",
        message=f"{words}: no subreaper, so a child that leaves its session may survive a cancel",
        mend="run Overnight on Linux",
    )


async def git() -> Finding:
    """Needed for diffs and for git workspaces."""
    found = shutil.which("git")
    if found:
        return Finding(name="git", status="ok", message=found)
    return Finding(
        name="git", status="warn", message="not on PATH: no diffs, no git workspaces", mend="install git"
    )


async def cgroup() -> Finding:
    """Whether a whole process tree can be killed at once."""
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        own = root / _own_cgroup()
        if (own / "cgroup.procs").is_file() and os.access(own, os.W_OK):
            return Finding(name="cgroup", status="ok", message=f"{own} is writable: trees are killed at once")
    return Finding(
        name="cgroup",
        status="ok",
        message="no writable cgroup v2: trees are swept by walking them, which suffices",
        mend="under systemd, Delegate=yes gives one",
    )


def disk(storage: Storage, free_bytes: Callable[[], int]) -> Look:
    """A look at the free space of the data directory."""

    async def look() -> Finding:
        free = free_bytes()
        words = f"{free // 1_000_000} MB free, {storage.reserve_bytes // 1_000_000} MB kept in reserve"
        if free < storage.reserve_bytes:
            mend = "free some disk space, or delete runs; until then new work is refused with 507"
            return Finding(name="disk", status="fail", message=words, mend=mend)
        if free < 4 * storage.reserve_bytes:
            return Finding(name="disk", status="warn", message=words, mend="free some disk space soon")
        return Finding(name="disk", status="ok", message=words)

    return look


def _own_cgroup() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return "."
    return next((line[4:] for line in lines if line.startswith("0::/")), ".")
