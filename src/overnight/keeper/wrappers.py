"""From the process that was started to the agent itself, where a sandbox stands between the two."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from typing import NamedTuple

from overnight.keeper import tree
from overnight.keeper.kernel import boot_now

FIRST_LOOK_S, LONGEST_LOOK_S = 0.005, 0.25
"""Between two looks for an agent whose sandbox is being made."""

_PIDFD_GET_INFO = 0xC040FF0B
_INFO = struct.Struct("=QQ11Ii")
_INFO_EXIT = 1 << 3
_SHELL_SIGNAL = 128


class Ended(NamedTuple):
    """How an agent ended: exactly one is set, or none when nobody saw it."""

    code: int | None
    signal: int | None


class Wrappers:
    """Who is who above and including the agent. Without wrappers the first process is the agent."""

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.due: float | None = None
        """Boot-clock second of the next look."""
        self._chain = [first]
        self._wanted = count + 1
        self._handle = -1
        self._pause_s = FIRST_LOOK_S
        self._over = False
        if count:
            self.due = boot_now() + FIRST_LOOK_S

    @property
    def agent(self) -> int | None:
        """The agent's own pid; None while its sandbox is being made."""
        return self._chain[-1] if len(self._chain) == self._wanted else None

    @property
    def parent(self) -> int:
        """Whose child the agent is."""
        return self._chain[-2] if self._wanted > 1 and self.agent is not None else os.getpid()

    @property
    def pids(self) -> frozenset[int]:
        """The processes above the agent, as far as they are there."""
        return frozenset(self._chain[: self._wanted - 1])

    def look(self, now: float) -> None:
        """Find those that have come since. Orphans that the last wrapper adopts come behind its own child."""
        while (
            not self._over
            and len(self._chain) < self._wanted
            and (below := tree.children_of(self._chain[-1]))
        ):
            self._chain.append(below[0])
        if self._over:
            return
        if self.agent is None:
            self._pause_s = min(self._pause_s * 2, LONGEST_LOOK_S)
            self.due = now + self._pause_s
        elif self.due is not None:
            self.due = None
            self._handle = _descriptor(self._chain[-1])

    def give_up(self) -> None:
        """The first process has ended: nobody is to be found any more, and its number may become a stranger's."""
        self.due, self._over = None, True

    def ended(self, status: int | None) -> Ended:
        """What the first process's wait status says about the agent.

        A wrapper tells a signal as a shell does, by 128 and its number. Where the kernel still knows how the agent
        itself ended (Linux 6.15), an exit code of that size is told from a signal; elsewhere it is taken for one.
        """
        if status is None:
            return Ended(None, None)
        code = os.waitstatus_to_exitcode(status)
        if self._wanted > 1 and code - _SHELL_SIGNAL in signal.valid_signals():
            own = _status_of(self._handle)
            code = os.waitstatus_to_exitcode(own) if own is not None else _SHELL_SIGNAL - code
        return Ended(code, None) if code >= 0 else Ended(None, -code)


def _descriptor(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1


def _status_of(handle: int) -> int | None:
    """The wait status of a process that is gone, by a descriptor from when it lived; None where that is not kept."""
    if handle < 0:
        return None
    answer = bytearray(_INFO.pack(_INFO_EXIT, *(0,) * 13))
    try:
        fcntl.ioctl(handle, _PIDFD_GET_INFO, answer)
    except OSError:
        return None
    mask, *_, status = _INFO.unpack(answer)
    return int(status) if mask & _INFO_EXIT else None
