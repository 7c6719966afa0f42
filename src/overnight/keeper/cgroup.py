"""A cgroup (version 2) of its own for each agent, where the system lets us make one: killed in one stroke."""

from __future__ import annotations

import os

PREFIX = "overnight"
"""A group's name is this, its keeper's pid, and something that is not used twice."""


def own_directory() -> str | None:
    """The directory of the caller's own version-2 cgroup if child groups with `cgroup.kill` can be made in it.

    None without cgroup v2, without write permission (not delegated to us), or on a kernel before 5.14.
    """
    mount, path = _mount_point(), _own_path()
    if mount is None or path is None:
        return None
    directory = os.path.normpath(f"{mount}/{path}")
    probe = AgentCgroup.make(directory, f"{PREFIX}-{os.getpid()}-probe")
    if probe is None:
        return None
    usable = os.access(f"{probe.path}/cgroup.kill", os.W_OK) and os.access(
        f"{directory}/cgroup.procs", os.W_OK
    )
    probe.remove()
    return directory if usable else None


def remove_stale(directory: str) -> None:
    """Remove the empty groups of keepers that are dead: one that is killed cannot do so itself."""
    for name in os.listdir(directory):
        kind, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if kind == PREFIX and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            AgentCgroup(f"{directory}/{name}").remove()


class AgentCgroup:
    """The group of one agent and everything that it starts."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def make(cls, directory: str, name: str) -> AgentCgroup | None:
        """A new group; None when it cannot be made."""
        path = f"{directory}/{name}"
        try:
            os.mkdir(path, 0o755)
        except OSError:
            return None
        return cls(path)

    def enter(self) -> None:
        """Move the calling process into the group. A process that may not simply stays outside."""
        self._write("cgroup.procs", b"0")

    def kill(self) -> bool:
        """SIGKILL everything in the group at once. False when that cannot be had."""
        return self._write("cgroup.kill", b"1")

    def members(self) -> list[int]:
        """The processes in the group, zombies not counted."""
        try:
            with open(f"{self.path}/cgroup.procs", "rb") as file:
                return [int(pid) for pid in file.read().split()]
        except OSError:
            return []

    def remove(self) -> bool:
        """Remove the empty group. False when something is still in it."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _write(self, name: str, data: bytes) -> bool:
        try:
            handle = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.write(handle, data) == len(data)
        except OSError:
            return False
        finally:
            os.close(handle)


def _mount_point() -> str | None:
    for line in _lines("/proc/self/mountinfo"):
        mounted, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return mounted.split()[4]
    return None


def _own_path() -> str | None:
    return next((line[3:] for line in _lines("/proc/self/cgroup") if line.startswith("0::")), None)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []
