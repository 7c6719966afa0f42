"""Confine an agent with bubblewrap: namespaces of its own, no capabilities, a view of the disk made for the turn."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from overnight.errors import BackendFailure
from overnight.ports.sandbox import Confined, Place, Trial
from overnight.workspaces.sandbox_guards import guard
from overnight.workspaces.sandbox_network import Network
from overnight.workspaces.sandbox_places import PRIVATE, Surroundings, allow, base_view
from overnight.workspaces.sandbox_view import View, resolved

PROGRAM: Final = "bwrap"
TRIAL_WITHIN_S: Final = 10.0
_OFF: Final = Trial(
    problem="the operator has switched the sandbox off", mend='set sandbox.mode = "auto" to confine agents'
)
_NOT_YET: Final = Trial(problem="the sandbox has not been tried out")
_MISSING: Final = "bubblewrap (bwrap) is not on PATH"
_INSTALL: Final = "install bubblewrap: apt install bubblewrap, dnf install bubblewrap, apk add bubblewrap"
_ALLOW: Final = (
    "allow unprivileged user namespaces to bwrap (an AppArmor profile, kernel.unprivileged_userns_clone=1, "
    "user.max_user_namespaces); in a container also a seccomp profile and a /proc that permit them"
)

_WALLS: Final = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL",
)  # fmt: skip
_NO_MORE_NAMESPACES: Final = "--disable-userns"
_PROC: Final = ("sys", "fs", "acpi", "scsi", "mtrr", "dynamic_debug")
"""Of /proc, read-only: to a server that runs as root, files such as sys/kernel/core_pattern are open by its number."""
_PROC_HIDDEN: Final = ("kcore", "keys", "sched_debug", "timer_list", "vmallocinfo")

# The last look before the agent begins: is the folder that was mounted the one that was checked? Nothing can change
# that any more, whatever has been done to the path meanwhile.
_SAME_FOLDER: Final = (
    'w=$1 n=$2; shift 2; [ "$(stat -Lc %d:%i -- "$w")" = "$n" ] && exec "$@"; '
    'echo "bwrap: another folder is in the place of the workspace" >&2; exit 1'
)


class NoSandbox:
    """See `ports.sandbox.Sandbox`: the operator wants none, and that is said wherever somebody asks."""

    @property
    def trial(self) -> Trial:
        """See `Sandbox.trial`."""
        return _OFF

    def try_out(self) -> Trial:
        """See `Sandbox.try_out`."""
        return _OFF

    def wrap(
        self,
        argv: tuple[str, ...],  # noqa: ARG002  # the port names them
        env: Mapping[str, str],  # noqa: ARG002
        cwd: Path,  # noqa: ARG002
        place: Place,  # noqa: ARG002
    ) -> Confined:
        """See `Sandbox.wrap`: it cannot."""
        raise _failure(_OFF.problem)


class Bubblewrap:
    """See `ports.sandbox.Sandbox`. `program` None: `bwrap` as found on the server's PATH."""

    def __init__(self, around: Surroundings, *, program: Path | None = None, network: Network) -> None:
        self._around = around
        self._named = program
        self._network = network
        self._flags: tuple[str, ...] = ()
        self._trial = _NOT_YET

    @property
    def trial(self) -> Trial:
        """See `Sandbox.trial`."""
        return self._trial

    def try_out(self) -> Trial:
        """See `Sandbox.try_out`: the namespaces and mounts that every turn needs, around a shell that does nothing."""
        found = self._try_out()
        if found.works or not self._trial.works:
            self._trial = found
        return found

    def _try_out(self) -> Trial:
        program = self._program()
        version = _version(program) if program is not None else None
        if program is None or version is None:
            return Trial(problem=_MISSING, mend=_INSTALL)
        said = ""
        for flags in ((_NO_MORE_NAMESPACES,), ()):  # older versions do not know it
            said = _try(program, (*_WALLS, *flags, *self._network.flags))
            if not said:
                self._flags = (*_WALLS, *flags, *self._network.flags)
                break
        problem = f"bubblewrap cannot confine a process here: {said}" if said else ""
        return Trial(version=version, problem=problem, mend=_ALLOW if said else "", note=self._network.note)

    def wrap(self, argv: tuple[str, ...], env: Mapping[str, str], cwd: Path, place: Place) -> Confined:
        """See `Sandbox.wrap`."""
        program = self._program()
        if program is None or not self._trial.works:
            raise _failure(f"{self._trial.problem or _MISSING}: the agent was not started")
        if (reason := _unsuitable(place)) is not None:
            raise _failure(reason)
        try:
            view = self._view(place)
        except (OSError, RuntimeError) as error:
            raise _failure(f"the sandbox could not be prepared: {error}") from error
        command = argv if place.workspace_id is None else (*_same_folder(place), *argv)
        walls = (
            str(program),
            *self._flags,
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            *_proc(),
        )
        confined = Confined(
            argv=(*walls, *view.arguments(), "--chdir", str(cwd), "--", *self._network.inside(command)),
            env=_environment(env),
            wrappers=2,
        )
        return self._network.outside(confined)

    def _program(self) -> Path | None:
        found = shutil.which(str(self._named or PROGRAM))
        return Path(found).absolute() if found is not None else None

    def _view(self, place: Place) -> View:
        view = base_view(self._around)
        allow(view, self._around, (*place.programs, *self._network.programs), place.path)
        writable = place.level == "workspace_write"
        for path in place.readable:
            view.set(path, "readable")
        view.set(place.workspace, "writable" if writable else "readable")
        for path in (place.home, *place.writable):
            view.set(path, "writable")
        if writable:
            guard(view, place.workspace)
        return view


def _same_folder(place: Place) -> tuple[str, ...]:
    return ("/bin/sh", "-c", _SAME_FOLDER, "sh", str(place.workspace), str(place.workspace_id))


def _proc() -> Iterable[str]:
    if not _is_root():
        return
    for name in _PROC:
        if Path("/proc", name).exists():
            yield from ("--ro-bind", f"/proc/{name}", f"/proc/{name}")
    for name in _PROC_HIDDEN:
        if Path("/proc", name).exists():
            yield from ("--ro-bind", "/dev/null", f"/proc/{name}")


def _environment(env: Mapping[str, str]) -> Mapping[str, str]:
    """Temporary files go where the sandbox has a place for them."""
    return {**env, "TMPDIR": str(PRIVATE[0])} if "TMPDIR" in env else env


def _unsuitable(place: Place) -> str | None:
    """Why `place` cannot be made.

    A root without capabilities cannot write what belongs to others; it should not be the agent that finds out.
    """
    try:
        facts = place.workspace.stat(follow_symlinks=False)
    except OSError as error:
        return f"the workspace {place.workspace} cannot be looked at: {error.strerror}"
    if place.home.is_symlink():
        return f"a link is in the place of the home {place.home}"
    if resolved(place.workspace) != place.workspace or not _is_the_same(facts, place.workspace_id):
        return f"another folder is in the place of the workspace {place.workspace}"
    from_root = place.level == "workspace_write" and _is_root() and facts.st_uid != 0
    if not from_root or facts.st_mode & 0o002:
        return None
    return (
        f"the workspace {place.workspace} belongs to user {facts.st_uid}, and an agent that is confined by a server "
        "which runs as root cannot write there: run the server as that user, give the folder to root, or ask for "
        "sandbox full_access"
    )


def _is_the_same(facts: os.stat_result, wanted: str | None) -> bool:
    return wanted is None or f"{facts.st_dev}:{facts.st_ino}" == wanted


def _is_root() -> bool:
    return os.geteuid() == 0


def _failure(message: str) -> BackendFailure:
    return BackendFailure(message, code="sandbox_failed", retryable=False)


def _version(program: Path) -> str | None:
    """The version as the program tells it; None when it cannot be started."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ran = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=TRIAL_WITHIN_S, check=True
        )
        return ran.stdout.strip().rpartition(" ")[2] or "unknown"
    return None


def _try(program: Path, flags: tuple[str, ...]) -> str:
    """Empty when a process could be confined, else what was said."""
    tmp = str(PRIVATE[0])
    mounts = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", tmp, "--remount-ro", tmp)
    try:
        ran = subprocess.run(
            [program, *flags, *mounts, "--", "/bin/sh", "-c", "exit 0"],
            capture_output=True, text=True, errors="replace", timeout=TRIAL_WITHIN_S, check=False,
            stdin=subprocess.DEVNULL, env={},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "" if ran.returncode == 0 else (ran.stderr.strip()[-300:] or f"exit code {ran.returncode}")
