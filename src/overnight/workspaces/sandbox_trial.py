"""Find out how bubblewrap can confine a process on this host, by doing it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from overnight.ports.sandbox import Trial
from overnight.workspaces.sandbox_places import PRIVATE

TRIAL_WITHIN_S: Final = 10.0
MISSING: Final = "bubblewrap (bwrap) is not on PATH"
_INSTALL: Final = "install bubblewrap: apt install bubblewrap, dnf install bubblewrap, apk add bubblewrap"
_ALLOW: Final = (
    "allow unprivileged user namespaces to bwrap (an AppArmor profile, kernel.unprivileged_userns_clone=1, "
    "user.max_user_namespaces); in a container also a seccomp profile and a /proc that permit them"
)
_WALLS: Final = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL",
)  # fmt: skip
_NO_MORE_NAMESPACES: Final = "--disable-userns"
_ALONE: Final = ("--mount", "--propagation", "private")
_MOUNTS_LATER: Final = "file systems that the host mounts during a turn show up in it"
_UNSHARE: Final = "install unshare (util-linux), and allow it user namespaces as bwrap is allowed them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The beginning of a command that confines: everything but what a turn mounts. Empty when there is none."""

    trial: Trial
    argv: tuple[str, ...] = ()


def seek(program: Path | None, more: tuple[str, ...], note: str) -> Way:
    """The best way that works here; `more` are further arguments of bubblewrap, `note` is for doctor.

    File systems that the host mounts later would come into the sandbox where mounts are shared, as under systemd, and
    writable. `unshare` cuts that off first; it replaces itself by bubblewrap and leaves no process of its own.
    """
    if sys.platform != "linux":
        return Way(
            trial=Trial(problem=f"there is no bubblewrap for {sys.platform}", mend="run Overnight on Linux")
        )
    version = _version(program) if program is not None else None
    if program is None or version is None:
        return Way(trial=Trial(problem=MISSING, mend=_INSTALL))
    said = ""
    for before, last in product(_before(), ((_NO_MORE_NAMESPACES,), ())):  # older versions do not know it
        argv = (*before, str(program), *_WALLS, *last, *more)
        said = _try(argv)
        if not said:
            if before or not _mounts_are_shared():
                return Way(trial=Trial(version=version, note=note), argv=argv)
            weak = Trial(version=version, note=f"{note}; {_MOUNTS_LATER}", mend=_UNSHARE)
            return Way(trial=weak, argv=argv)
    problem = f"bubblewrap cannot confine a process here: {said}"
    return Way(trial=Trial(version=version, problem=problem, mend=_ALLOW))


def _before() -> Iterator[tuple[str, ...]]:
    unshare = shutil.which("unshare") if _mounts_are_shared() else None
    if unshare is not None:
        if os.geteuid() == 0:
            yield (unshare, *_ALONE)
        yield (unshare, "--user", "--map-current-user", *_ALONE)
    yield ()


def _mounts_are_shared() -> bool:
    """Whether a mount that is made elsewhere can appear here."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return any(" shared:" in line or " master:" in line for line in file)
    except OSError:
        return False


def _version(program: Path) -> str | None:
    """The version as the program tells it; None when it cannot be started."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ran = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=TRIAL_WITHIN_S, check=True
        )
        return ran.stdout.strip().rpartition(" ")[2] or "unknown"
    return None


def _try(argv: tuple[str, ...]) -> str:
    """Empty when a process could be confined, else what was said."""
    tmp = str(PRIVATE[0])
    mounts = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", tmp, "--remount-ro", tmp)
    try:
        ran = subprocess.run(
            [*argv, *mounts, "--", "/bin/sh", "-c", "exit 0"],
            capture_output=True, text=True, errors="replace", timeout=TRIAL_WITHIN_S, check=False,
            stdin=subprocess.DEVNULL, env={},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "" if ran.returncode == 0 else (ran.stderr.strip()[-300:] or f"exit code {ran.returncode}")
