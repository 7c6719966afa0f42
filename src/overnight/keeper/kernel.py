"""What a keeper asks of the kernel and the `os` module does not offer. Each part says whether it could be had."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import sys
import time
from typing import NamedTuple

LINUX = sys.platform == "linux"

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK_BOOTTIME = 7
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_libc = ctypes.CDLL(None, use_errno=True)


def boot_now() -> float:
    """Seconds since the machine booted, suspension included."""
    return time.clock_gettime(_BOOT)


def set_name(name: str) -> None:
    """The name that `ps` shows, 15 bytes."""
    if LINUX:
        _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def become_subreaper() -> bool:
    """Orphans among our descendants become our children. False where the system cannot do that."""
    return LINUX and _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def forbid_dumps() -> bool:
    """Other processes of the same user can neither trace us nor read our memory."""
    return LINUX and _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0


def die_with_parent(parent: int) -> None:
    """SIGKILL us when the thread that forked us ends. For a fresh child, before exec."""
    if not LINUX:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


class Abilities(NamedTuple):
    """What this system lets a keeper do; shown by `doctor`."""

    subreaper: bool
    """Descendants cannot slip away by double forking."""
    pidfd: bool
    """Signals cannot meet a stranger that was given an old pid."""
    tree: bool
    """The process tree can be listed (/proc). Without, only the agent's own process group can be ended."""
    cgroup_kill: bool
    """The agent gets a cgroup of its own that is killed in one stroke."""
    boot_timer: bool
    """Deadlines fire right after a suspension, not up to 5 s later."""


def abilities(*, cgroup: bool) -> Abilities:
    """What can be had here. Makes the caller a subreaper as a side effect."""
    return Abilities(
        subreaper=become_subreaper(),
        pidfd=hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"),
        tree=os.path.exists("/proc/self/stat"),
        cgroup_kill=cgroup,
        boot_timer=_has_timerfd(),
    )


def _has_timerfd() -> bool:
    return LINUX and hasattr(_libc, "timerfd_create")


class Alarm:
    """A file descriptor that becomes readable at a boot-time second, also right after a suspension.

    `fd` is -1 where the system has none: then the caller must look at the clock every few seconds.
    """

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_BOOTTIME, _TFD_FLAGS) if _has_timerfd() else -1
        self._due: float | None = None

    def set(self, due: float | None) -> None:
        """Ring at `due`, or not at all. Costs nothing when nothing changes."""
        if self.fd < 0 or due == self._due:
            return
        self._due = due
        at = 0.0 if due is None else max(due, 0.000001)
        spec = struct.pack("llll", 0, 0, int(at), int(at % 1 * 1e9))
        _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, spec, None)

    def clear(self) -> None:
        """It has rung."""
        self._due = None
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)
