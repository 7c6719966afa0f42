"""End an agent and everything that it ever started, step by step, and know that it is so.

interrupt (the agent alone) → SIGTERM (the whole tree) → grace → SIGKILL → sweep, again until no process is left.
Because the keeper is a subreaper, "no process is left" has an exact meaning: it has no child any more, not even a dead
one. The steps that were taken are written down.
"""

from __future__ import annotations

import base64
import os
import signal
from typing import Literal

from overnight.keeper import tree
from overnight.keeper.cgroup import AgentCgroup
from overnight.keeper.feed import StdinFeed
from overnight.keeper.kernel import boot_now
from overnight.keeper.wrappers import Wrappers
from overnight.keeper_protocol import Interrupt, Reason, Step, stat_fields

LEFTOVER_GRACE_S = 0.5
"""What background processes get between SIGTERM and SIGKILL once the agent itself has ended well."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.25
"""Between two rounds of a sweep: processes that cannot die must not cost a core."""
TERM_ROUND_S = 0.05
"""Between two looks for processes that appeared after SIGTERM."""
REACH_ROUND_S = 0.005
"""Between two attempts to interrupt an agent whose sandbox is being made."""
REPORT_AFTER_S = 2.0
"""A sweep that takes longer says who is left."""

Phase = Literal["idle", "interrupted", "terminated", "sweeping", "gone"]


class Ladder:
    """Where the ladder stands. Nothing in it waits: `step` does what is due, `due` says when to come back."""

    def __init__(self, wrappers: Wrappers, feed: StdinFeed, group: AgentCgroup | None) -> None:
        self.phase: Phase = "idle"
        self.reason: Reason = "exit"
        self.due: float | None = None
        """Boot-clock second of the next step."""
        self.grace_s = LEFTOVER_GRACE_S
        self.survivors = 0
        """Living processes at the last look of a sweep that takes long."""
        self._wrappers = wrappers
        self._feed = feed
        self._group = group
        self._began = boot_now()
        self._until = 0.0
        self._unsent: int | None = None
        """The signal that an agent is to be interrupted with as soon as it is there."""
        self._signalled: set[int] = set()
        self._steps: list[Step] = []
        self._swept = 0
        self._sweep_began = 0.0
        self._pause_s = FIRST_PAUSE_S

    @property
    def steps(self) -> tuple[Step, ...]:
        """What has been done so far."""
        return tuple(self._steps)

    def begin(self, reason: Reason, interrupt: Interrupt | None, grace_s: float, now: float) -> None:
        """Start the ladder, or make one that is under way faster; never slower, and the first reason stays."""
        if self.phase == "gone":
            return
        if self.reason == "exit":
            self.reason = reason
        if self.phase == "idle":
            self.grace_s = grace_s
            self._first_step(interrupt, now)
        else:
            self._hurry(interrupt, grace_s, now)

    def agent_ended(self, now: float) -> None:
        """The agent itself has been reaped: whatever else is left has to go too."""
        if self.phase == "idle":
            self._terminate(now)
        elif self.phase == "interrupted":
            self.grace_s = min(self.grace_s, LEFTOVER_GRACE_S)
            self._terminate(now)

    def all_ended(self, now: float) -> None:
        """There is no child any more."""
        if self.phase == "gone" or (self._group is not None and not self._is_empty(self._group, now)):
            return
        if self._swept:
            self._note("sweep", self._swept, now)
        self.phase, self.due, self.survivors = "gone", None, 0

    def step(self, now: float) -> None:
        """Do what is due."""
        if self.due is None or now < self.due:
            return
        match self.phase:
            case "interrupted" if now < self._until:
                self._interrupt(now)
            case "interrupted":
                self._terminate(now)
            case "terminated" if now < self._until:
                self._terminate_newcomers(now)
            case "terminated":
                self._kill(now)
            case "sweeping":
                self._sweep(now)
            case _:
                self.due = None

    def _first_step(self, interrupt: Interrupt | None, now: float) -> None:
        if interrupt is None:
            self._terminate(now)
            return
        self.phase, self._until = "interrupted", now + interrupt.wait_s
        self._feed.append(base64.b64decode(interrupt.data))
        self._unsent = interrupt.signal
        self._note("interrupt", 1, now)
        self._interrupt(now)

    def _interrupt(self, now: float) -> None:
        """The agent alone, and not what stands above it: its sandbox must outlive it."""
        self._wrappers.look(now)
        agent = self._wrappers.agent
        if self._unsent is not None and agent is None:
            self.due = min(self._until, now + REACH_ROUND_S)
            return
        if self._unsent is not None and agent is not None:
            tree.send(agent, self._unsent, parents=(self._wrappers.parent, os.getpid()))
        self._unsent, self.due = None, self._until

    def _hurry(self, interrupt: Interrupt | None, grace_s: float, now: float) -> None:
        self.grace_s = min(self.grace_s, grace_s)
        if self.phase == "interrupted" and interrupt is None:
            self._terminate(now)
        elif self.phase == "terminated":
            self._until = min(self._until, now + grace_s)
            self.due = now

    def _terminate(self, now: float) -> None:
        self.phase, self._until = "terminated", now + self.grace_s
        reached = self._signal_new(signal.SIGTERM)
        if reached:
            self._note("sigterm", len(reached), now)
        self.due = min(self._until, now + TERM_ROUND_S)

    def _terminate_newcomers(self, now: float) -> None:
        self._signal_new(signal.SIGTERM)
        self.due = min(self._until, now + TERM_ROUND_S)

    def _signal_new(self, signum: int) -> list[int]:
        """Also wakes what is stopped: a stopped process cannot obey. A sandbox ends by itself when its agent has."""
        self._wrappers.look(boot_now())
        spared = self._wrappers.pids
        below = tree.descendants([os.getpid()])
        found = {pid: parent for pid, parent in below.items() if pid not in spared}
        fresh = tree.signal_descendants(found, signum, adopter=os.getpid(), done=self._signalled.__contains__)
        self._signalled.update(fresh)
        for pid in fresh:
            if (fields := stat_fields(pid)) and fields[0] == "T":
                tree.send(pid, signal.SIGCONT, parents=(found[pid], os.getpid()))
        return fresh or self._signal_group(signum, found)

    def _kill(self, now: float) -> None:
        self.phase, self._sweep_began = "sweeping", now
        living = self._kill_round()
        self._signalled.update(living)
        if living:
            self._note("sigkill", len(living), now)
        self.due = now + self._pause_s

    def _sweep(self, now: float) -> None:
        living = self._kill_round()
        self._swept += len([pid for pid in living if pid not in self._signalled])
        self._signalled.update(living)
        if now - self._sweep_began >= REPORT_AFTER_S:
            self.survivors = len(living)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self.due = now + self._pause_s

    def _kill_round(self) -> list[int]:
        """Those who lived when it began: the group's kill may be quicker than the walk."""
        found = tree.descendants([os.getpid()])
        living = [pid for pid in found if tree.is_living(pid)]
        if self._group is not None:
            self._group.kill()
        tree.signal_descendants(found, signal.SIGKILL, adopter=os.getpid())
        return living or self._signal_group(signal.SIGKILL, found)

    def _signal_group(self, signum: int, found: dict[int, int]) -> list[int]:
        """Where processes cannot be listed there is only the agent's own process group."""
        if found or os.path.exists("/proc/self/stat"):
            return []
        try:
            os.killpg(self._wrappers.first, signum)
        except OSError:
            return []
        return [self._wrappers.first]

    def _is_empty(self, group: AgentCgroup, now: float) -> bool:
        """A process may sit in the group without being our descendant; it goes all the same."""
        if not group.members():
            return True
        group.kill()
        self.phase, self.due = "sweeping", now + LONGEST_PAUSE_S / 10
        return False

    def _note(
        self, name: Literal["interrupt", "sigterm", "sigkill", "sweep"], processes: int, now: float
    ) -> None:
        self._steps.append(Step(name, round(now - self._began, 3), processes))
