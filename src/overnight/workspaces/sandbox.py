"""Confine an agent with bubblewrap: namespaces of its own, no capabilities, a view of the disk made for the turn."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from overnight.errors import BackendFailure
from overnight.ports.sandbox import Confined, Place, Trial
from overnight.workspaces.sandbox_guards import guard, take_back
from overnight.workspaces.sandbox_last_look import look
from overnight.workspaces.sandbox_network import Network
from overnight.workspaces.sandbox_places import (
    PRIVATE,
    Surroundings,
    base_view,
    make_exceptions,
    show_programs,
)
from overnight.workspaces.sandbox_trial import MISSING, Way, seek
from overnight.workspaces.sandbox_view import View, resolved

PROGRAM: Final = "bwrap"
HOST_FOR_S: Final = 2.0
"""How long what was found out about the host is relied upon; what has gone meanwhile fails a turn, and is retried."""
_OFF: Final = Trial(
    problem="the operator has switched the sandbox off", mend='set sandbox.mode = "auto" to confine agents'
)
_NOT_YET: Final = Way(trial=Trial(problem="the sandbox has not been tried out"))
_PROC: Final = ("sys", "fs", "acpi", "scsi", "mtrr", "dynamic_debug")
"""Of /proc, read-only: to a server that runs as root, files such as sys/kernel/core_pattern are open by its number."""
_PROC_HIDDEN: Final = ("kcore", "keys", "sched_debug", "timer_list", "vmallocinfo")

_STEERING: Final = (
    "LD_*", "DYLD_*", "GLIBC_*", "MALLOC_*", "GCONV_PATH", "LOCPATH", "NLSPATH", "TZDIR", "HOSTALIASES", "RES_OPTIONS",
    "LOCALDOMAIN", "GETCONF_DIR", "BASH*", "ENV", "SHELLOPTS", "PS4", "IFS", "PROMPT_COMMAND", "CDPATH",
)  # fmt: skip
"""Variables that change what a program does before it begins."""


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

    def take_back(self, workspace: Path, since: float) -> tuple[Path, ...]:  # noqa: ARG002
        """See `Sandbox.take_back`: what nobody confined is nobody's plant."""
        return ()


class Bubblewrap:
    """See `ports.sandbox.Sandbox`. `program` None: `bwrap` as found on the server's PATH."""

    def __init__(self, around: Surroundings, *, program: Path | None = None, network: Network) -> None:
        self._around = around
        self._named = program
        self._network = network
        self._way = _NOT_YET
        self._hosts: dict[tuple[tuple[Path, ...], str], tuple[float, View]] = {}

    @property
    def trial(self) -> Trial:
        """See `Sandbox.trial`."""
        return self._way.trial

    def try_out(self) -> Trial:
        """See `Sandbox.try_out`: the namespaces and mounts that every turn needs, around a shell that does nothing."""
        way = seek(self._program(), self._network.flags, self._network.note)
        if way.trial.works or not self._way.trial.works:
            self._way = way
        return way.trial

    def wrap(self, argv: tuple[str, ...], env: Mapping[str, str], cwd: Path, place: Place) -> Confined:
        """See `Sandbox.wrap`."""
        if self._program() is None or not self.trial.works:
            raise _failure(f"{self.trial.problem or MISSING}: the agent was not started")
        if (reason := _unsuitable(place)) is not None:
            raise _failure(reason)
        try:
            view = self._view(place)
            own, steering = _sorted_out(env)
            command = (*look(place.workspace, place.workspace_id, view.kept()), *steering, *argv)
        except (OSError, RuntimeError) as error:
            raise _failure(f"the sandbox could not be prepared: {error}") from error
        walls = (*self._way.argv, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", *_proc())
        confined = Confined(
            argv=(*walls, *view.arguments(), "--chdir", str(cwd), "--", *self._network.inside(command)),
            env=own,
            wrappers=2,
        )
        return self._network.outside(confined)

    def take_back(self, workspace: Path, since: float) -> tuple[Path, ...]:
        """See `Sandbox.take_back`."""
        return tuple(take_back(workspace, since))

    def _program(self) -> Path | None:
        found = shutil.which(str(self._named or PROGRAM))
        return Path(found).absolute() if found is not None else None

    def _host(self, place: Place) -> View:
        """What is the same for all turns of a program, looked up anew every other second: turns come in crowds."""
        key, now = (place.programs, place.path), time.monotonic()
        made = self._hosts.get(key)
        if made is None or now - made[0] > HOST_FOR_S:
            view = base_view(self._around)
            show_programs(view, self._around, (*place.programs, *self._network.programs), place.path)
            made = self._hosts[key] = (now, view)
        return made[1]

    def _view(self, place: Place) -> View:
        view = self._host(place).copy()
        writable = place.level == "workspace_write"
        # Nothing in it is shown for its own sake: what lies there can be replaced at any moment.
        view.give(place.workspace, "writable" if writable else "readable")
        make_exceptions(view, self._around)
        for path in place.readable:
            view.set(path, "readable")
        for path in (place.home, *place.writable):
            view.set(path, "writable")
        if writable:
            guard(view, place.workspace)
        return view


def _proc() -> Iterable[str]:
    if not _is_root():
        return
    for name in _PROC:
        if Path("/proc", name).exists():
            yield from ("--ro-bind", f"/proc/{name}", f"/proc/{name}")
    for name in _PROC_HIDDEN:
        if Path("/proc", name).exists():
            yield from ("--ro-bind", "/dev/null", f"/proc/{name}")


def _sorted_out(env: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The variables that everything may have, and a command that sets the rest for the agent alone.

    The rest would steer loaders and shells that make the sandbox, and these are not confined yet. Temporary files go
    where the sandbox has a place for them.
    """
    steering = [f"{name}={env[name]}" for name in env if any(fnmatchcase(name, each) for each in _STEERING)]
    plain = {name: value for name, value in env.items() if f"{name}={value}" not in steering}
    if "TMPDIR" in plain:
        plain["TMPDIR"] = str(PRIVATE[0])
    program = shutil.which("env", path=os.defpath) or "env"
    return plain, (program, *steering) if steering else ()


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
