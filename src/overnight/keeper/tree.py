"""The processes below one of ours: list them, signal them, count them, without ever meeting a stranger's pid."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from overnight.keeper_protocol import stat_fields

_HAS_PIDFD = hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


def children_of(pid: int) -> list[int]:
    """The children of every thread of a process, zombies included. Empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
        except FileNotFoundError:
            if _KERNEL_LISTS_CHILDREN:
                continue
            return _children_by_scan(pid)
        except OSError:
            continue
    return found


def descendants(roots: Iterable[int]) -> dict[int, int]:
    """Everything below `roots`, as pid -> the parent under which it was found; nearest first.

    A snapshot that others change meanwhile: whoever kills must look again until nothing is left.
    """
    found: dict[int, int] = {}
    layer = list(roots)
    seen = set(layer)
    while layer:
        below = {child: parent for parent in layer for child in children_of(parent) if child not in seen}
        found.update(below)
        seen.update(below)
        layer = list(below)
    return found


def is_living(pid: int) -> bool:
    """There, and neither a zombie nor dead."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def signal_descendants(
    found: dict[int, int], signum: int, *, adopter: int, done: Callable[[int], bool] = lambda _: False
) -> list[int]:
    """Send a signal to each living process of a `descendants` snapshot that is not `done` yet.

    A pid is signalled through a descriptor, and only while its parent is the one it was found under, or `adopter`
    (a subreaper of ours) because that parent has died: so a stranger who got the number is never met.
    Returns those that got it.
    """
    return [
        pid for pid, parent in found.items() if not done(pid) and send(pid, signum, parents=(parent, adopter))
    ]


def send(pid: int, signum: int, *, parents: tuple[int, ...]) -> bool:
    """Signal one process if it lives and is a child of one of `parents`. False when not."""
    if not _HAS_PIDFD:
        return _send_by_number(pid, signum, parents)
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        fields = stat_fields(pid)
        if fields is None or fields[0] in "ZX" or int(fields[1]) not in parents:
            return False
        signal.pidfd_send_signal(handle, signum)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _send_by_number(pid: int, signum: int, parents: tuple[int, ...]) -> bool:
    fields = stat_fields(pid)
    if fields is not None and (fields[0] in "ZX" or int(fields[1]) not in parents):
        return False
    try:
        os.kill(pid, signum)
    except OSError:
        return False
    return True


def _children_by_scan(parent: int) -> list[int]:
    """For kernels that do not list children: one look at every process."""
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and (fields := stat_fields(int(name))) and int(fields[1]) == parent
    ]


_KERNEL_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
