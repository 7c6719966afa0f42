"""The last net: find and end what a turn has left when its keeper, and perhaps the spawner, are dead.

Marks that a process cannot shed by double forking, by a session of its own or by clearing its environment: the turn's
cgroup, and the ends of the agent's pipes. A pipe's inode number is unique for as long as anyone holds the pipe.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from overnight.keeper_protocol import Identity, boot_id, is_same_process, stat_fields

PATIENCE_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.25


def sweep(identity: Identity, *, patience_s: float = PATIENCE_S) -> int:
    """SIGKILL everything that bears a mark of this turn, again until nothing is found. Blocks; returns survivors."""
    if identity.boot_id != boot_id():
        return 0
    until, pause = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        _kill_group(identity.cgroup)
        found = set(_marked(identity))
        for pid in found:
            _kill(pid)
        if not found or time.monotonic() >= until:
            _remove_group(identity.cgroup)
            return len(found)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)


def _marked(identity: Identity) -> Iterator[int]:
    """Living processes of the turn: in its cgroup, holding its pipes, the agent itself, and all of their children.

    What stands above a confined agent may not show its descriptors; the last of it takes everything with it.
    """
    roots = {*_group_members(identity.cgroup), *_holders(identity.pipes)}
    for pid, started in ((identity.agent_pid, identity.agent_starttime), *identity.wrappers):
        if is_same_process(pid, started, identity.boot_id, identity.pid_ns):
            roots.add(pid)
    yield from roots
    if roots:
        yield from _below(roots)


def _holders(pipes: Iterable[int]) -> Iterator[int]:
    """Processes with one of these pipes open. Those of other users cannot be seen; ours are not theirs."""
    wanted = {f"pipe:[{inode}]" for inode in pipes}
    for pid in _all_pids():
        if pid != os.getpid() and not wanted.isdisjoint(_links(f"/proc/{pid}/fd")):
            yield pid


def _links(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")
        except OSError:
            continue


def _below(roots: set[int]) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        fields = stat_fields(pid)
        if fields is not None and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(pid)
    layer = list(roots)
    while layer:
        layer = [child for pid in layer for child in children.get(pid, ()) if child not in roots]
        yield from layer


def _all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    """A pid that was found a moment ago: through a descriptor where there is one, so that it cannot have changed."""
    try:
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, signal.SIGKILL)
            return
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(handle)


def _group_members(group: str | None) -> list[int]:
    if group is None:
        return []
    try:
        return [int(pid) for pid in Path(group, "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _kill_group(group: str | None) -> None:
    if group is None:
        return
    try:
        Path(group, "cgroup.kill").write_text("1", encoding="ascii")
    except OSError:
        return


def _remove_group(group: str | None) -> None:
    if group is None:
        return
    try:
        Path(group).rmdir()
    except OSError:
        return
