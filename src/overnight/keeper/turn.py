"""One turn's process from start to end: its pipes, its limits, its ladder, its record."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from typing import Literal

from overnight.keeper import tree
from overnight.keeper.agent import start_agent
from overnight.keeper.cgroup import AgentCgroup
from overnight.keeper.feed import StdinFeed
from overnight.keeper.kernel import boot_now
from overnight.keeper.ladder import Ladder
from overnight.keeper.pump import Pump, make_output
from overnight.keeper.records import sync_record, write_record
from overnight.keeper.wrappers import Wrappers
from overnight.keeper_protocol import ExitRecord, KeeperState, LaunchSpec, Limits

COUNT_EVERY_S = 1.0
"""How often the children are counted where their number is limited; ten times as often from half the limit on."""
RECORD_RETRY_S = 0.5


class Turn:
    """A started agent. Phases: running → stopping (a ladder, or leftovers) → ended (the record stands)."""

    def __init__(self, spec: LaunchSpec, group: AgentCgroup | None) -> None:
        self.spec = spec
        self.limits: Limits = spec.limits
        self.record: ExitRecord | None = None
        """Set at the end, when nothing is left and all output is in the files."""
        self.recorded = False
        """Whether exit.json has been written; on a full disk that may have to wait."""
        out, err = make_output(spec.out_path), make_output(spec.err_path)
        self.agent = start_agent(spec, group)
        self.started_at = time.time()
        self.pump = Pump((self.agent.stdout, out), (self.agent.stderr, err), self.limits.output_bytes)
        self.feed = StdinFeed(self.agent.stdin)
        if spec.stdin:
            self.feed.take(1, base64.b64decode(spec.stdin))
        if spec.close_stdin:
            self.feed.close()
        self.wrappers = Wrappers(self.agent.pid, spec.wrappers)
        self.ladder = Ladder(self.wrappers, self.feed, group)
        self._group = group
        self._status: int | None = None
        self._agent_ended_at: float | None = None
        self._no_child = False
        self._give_up_due: float | None = None
        self._count_due = boot_now() if self.limits.children is not None else None
        self._record_due: float | None = None

    @property
    def phase(self) -> Literal["running", "stopping", "ended"]:
        """Where the turn stands."""
        if self.record is not None:
            return "ended"
        return "running" if self.ladder.phase == "idle" else "stopping"

    def dues(self) -> Iterator[float | None]:
        """Boot-clock seconds at which `step` has something to do."""
        yield self._record_due
        if self.record is not None:
            return
        yield from (self.ladder.due, self.pump.retry_due, self._give_up_due, self.wrappers.due)
        yield from (self.limits.deadline, self.limits.orphan_deadline)
        if self.phase == "running":
            yield self._count_due

    def reap(self) -> None:
        """Take leave of every child that has ended."""
        try:
            while not self._no_child:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.agent.pid:
                    self._status = status
                    self._agent_ended_at = time.time()
                    self.wrappers.give_up()
        except ChildProcessError:
            self._no_child = True

    def step(self, now: float) -> None:
        """Do whatever is due: limits, ladder, leftovers, the end."""
        if self.record is not None:
            self._write_record(now)
            return
        self._check_clocks(now)
        if self.wrappers.due is not None and now >= self.wrappers.due:
            self.wrappers.look(now)
        if self.phase == "running":
            self._check_amounts(now)
        if self._status is not None and not self._no_child:
            self.ladder.agent_ended(now)
        if self._no_child:
            self.ladder.all_ended(now)
        self.ladder.step(now)
        if self.pump.retry_due is not None and now >= self.pump.retry_due:
            self.pump.retry(now)
        if self.ladder.phase == "gone":
            self._finish(now)

    def state(self, token: int) -> KeeperState:
        """What a client is told when it attaches."""
        out, err = self.pump.sizes
        return KeeperState(
            phase=self.phase,
            token=token,
            agent_pid=self.agent.pid,
            stdout_bytes=out,
            stderr_bytes=err,
            stdin_last=self.feed.last,
            stdin_closed=self.feed.state != "open",
            stalled=self.pump.stalled,
            deadline=self.limits.deadline,
            orphan_deadline=self.limits.orphan_deadline,
            record=self.record,
        )

    def note_survivors(self) -> None:
        """Leave an interim record that names how many could not be ended, in case we do not live to see them go."""
        write_record(self.spec.turn_folder, self._make_record(self.ladder.survivors))

    def _check_clocks(self, now: float) -> None:
        """Each has its effect once; on a ladder that is under way it is to hurry."""
        if self.limits.orphan_deadline is not None and now >= self.limits.orphan_deadline:
            self.limits = self.limits._replace(orphan_deadline=None)
            self._begin("fenced", now)
        if self.limits.deadline is not None and now >= self.limits.deadline:
            self.limits = self.limits._replace(deadline=None)
            self._begin("deadline", now)

    def _check_amounts(self, now: float) -> None:
        if self.pump.overrun:
            self._begin("output_limit", now)
        elif self.limits.children is not None and self._count_due is not None and now >= self._count_due:
            self._count_children(self.limits.children, now)

    def _begin(
        self, reason: Literal["deadline", "fenced", "output_limit", "children_limit"], now: float
    ) -> None:
        # Who is fenced has to be gone before another host takes over: no time for the agent's own interrupt.
        first = self.spec.interrupt if self.phase == "running" and reason != "fenced" else None
        self.ladder.begin(reason, first, self.limits.grace_s, now)
        self.stop_waiting(now, self.limits.grace_s)

    def _count_children(self, limit: int, now: float) -> None:
        found = set(tree.descendants([os.getpid()])) - self.wrappers.pids
        living = len(found) if len(found) <= limit else sum(map(tree.is_living, found))
        self._count_due = now + (COUNT_EVERY_S if living <= limit // 2 else COUNT_EVERY_S / 10)
        if living - 1 > limit:
            self._begin("children_limit", now)

    def _finish(self, now: float) -> None:
        """Nothing lives any more. On a full disk, wait for room: without end after a good end, else for the grace."""
        if not self.pump.drain(now):
            if self._give_up_due is None and self.ladder.reason != "exit":
                self._give_up_due = now + self.ladder.grace_s
            if self._give_up_due is None or now < self._give_up_due:
                return
            self.pump.give_up()
        self.feed.shut()
        self.record = self._make_record(0)
        if self._group is not None:
            self._group.remove()
        self._write_record(now)

    def stop_waiting(self, now: float, grace_s: float) -> None:
        """A ladder was asked for after the last process had gone: only a full disk can still be in the way."""
        if self.ladder.phase == "gone" and self.record is None and self._give_up_due is None:
            self._give_up_due = now + grace_s

    def _write_record(self, now: float) -> None:
        if self.recorded or self.record is None:
            return
        self.recorded = write_record(self.spec.turn_folder, self.record)
        self._record_due = None if self.recorded else now + RECORD_RETRY_S

    def sync(self) -> None:
        """Make output and record survive a loss of power, for a server that may come much later. Slow."""
        for stream in self.pump.streams:
            if stream.written:
                stream.sync()
        sync_record(self.spec.turn_folder)

    def _make_record(self, survivors: int) -> ExitRecord:
        out, err = self.pump.sizes
        ended = self.wrappers.ended(self._status)
        return ExitRecord(
            reason=self.ladder.reason,
            exit_code=ended.code,
            signal=ended.signal,
            started_at=self.started_at,
            ended_at=self._agent_ended_at or time.time(),
            stdout_bytes=out,
            stderr_bytes=err,
            stdin_last=self.feed.last,
            steps=self.ladder.steps,
            survivors=survivors,
            discarded_bytes=self.pump.discarded,
        )
