"""The keeper of one turn: owns the agent's process from launch to acknowledged end, and outlives the server."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, NoReturn

from overnight.keeper import kernel, tree
from overnight.keeper.agent import StartFailed
from overnight.keeper.cgroup import PREFIX, AgentCgroup
from overnight.keeper.connection import Connection, Refused, listen
from overnight.keeper.desk import Desk
from overnight.keeper.kernel import boot_now
from overnight.keeper.loop import Loop, SignalPipe
from overnight.keeper.pump import Stream
from overnight.keeper.records import TurnFolder, TurnTaken
from overnight.keeper.turn import Turn
from overnight.keeper_protocol import (
    VERSIONS,
    Identity,
    Launch,
    boot_id,
    launch_from,
    pid_namespace,
    starttime,
    to_json,
)

RETIRE_S = 0.5
"""How long a keeper that may go waits for its last answer to be taken."""


class Surroundings(NamedTuple):
    """What a keeper is told by the spawner that forked it."""

    runtime_dir: str
    cgroup_dir: str | None
    abilities: kernel.Abilities


def run_keeper(sock: socket.socket, handle: int, surroundings: Surroundings) -> NoReturn:
    """Be a keeper, in a process that was just forked for it; the launch is read from `handle`, answered on `sock`."""
    os.setsid()
    kernel.set_name("ovn-keeper")
    kernel.forbid_dumps()
    kernel.become_subreaper()
    connection = Connection(sock)
    group: AgentCgroup | None = None
    try:
        launch = _read_launch(handle)
        name = f"{os.getpid()}-{launch.nonce[:8]}"
        if surroundings.cgroup_dir is not None:
            group = AgentCgroup.make(surroundings.cgroup_dir, f"{PREFIX}-{name}")
        keeper = Keeper(launch, name, group, connection, surroundings)
    except (StartFailed, TurnTaken, OSError, ValueError, KeyError) as error:
        _end_everything(group)
        used = isinstance(error, TurnTaken | FileExistsError)
        connection.send(Refused("turn_used" if used else "start_failed", str(error)).message(0))
        connection.finish(RETIRE_S)
        os._exit(1)
    keeper.run()
    os._exit(0)


class Keeper:
    """One turn, its clients, and the loop between them."""

    def __init__(
        self,
        launch: Launch,
        name: str,
        group: AgentCgroup | None,
        connection: Connection,
        surroundings: Surroundings,
    ) -> None:
        self._loop = Loop()
        self._signals = SignalPipe(self._loop, (signal.SIGCHLD, signal.SIGTERM))
        self._folder = TurnFolder(launch.spec.turn_folder)
        self._turn = Turn(launch.spec, group)
        self._linger_due: float | None = None
        self._pipes: set[int] = set()
        self._socket = f"{surroundings.runtime_dir}/k-{name}.sock"
        listener = listen(self._socket)
        identity = self._identity(launch, group.path if group else None, surroundings)
        self._folder.write_identity(identity)
        self._named = launch.spec.wrappers == 0
        """Whether keeper.json names everything that stands above the agent."""
        self._desk = Desk(self._loop, listener, self._turn, identity, launch.secret)
        self._desk.welcome(connection, launch.token)

    def run(self) -> None:
        """Until the end has been acknowledged, or nobody came for it."""
        while not self._is_over(boot_now()):
            self._watch_pipes()
            self._desk.serve(boot_now())
            self._loop.wait(self._dues())
            now = boot_now()
            if signal.SIGTERM in self._signals.take():
                self._turn.ladder.begin(
                    "terminated", self._turn.spec.interrupt, self._turn.limits.grace_s, now
                )
            self._turn.reap()
            self._turn.step(now)
            self._name_wrappers()
            self._end_once(now)
        self._desk.close(RETIRE_S)
        self._folder.clear()
        os.unlink(self._socket)

    def _dues(self) -> Iterator[float | None]:
        yield self._linger_due
        yield from self._turn.dues()
        yield from self._desk.dues()

    def _watch_pipes(self) -> None:
        """Every round, since each of these may have been closed in the last one."""
        pump, feed = self._turn.pump, self._turn.feed
        watched = {stream.pipe for stream in pump.streams if stream.readable}
        if feed.wants_write:
            watched.add(feed.pipe)
        for gone in self._pipes - watched:
            self._loop.forget(gone)
        self._pipes = watched
        for stream in pump.streams:
            if stream.readable:
                self._loop.watch(stream.pipe, select.POLLIN, partial(self._read, stream))
        if feed.wants_write:
            self._loop.watch(feed.pipe, select.POLLOUT, lambda _: feed.flush())

    def _read(self, stream: Stream, _: int) -> None:
        self._turn.pump.read(stream, boot_now())

    def _name_wrappers(self) -> None:
        """Leave their numbers for whoever has to sweep after us: they need not hold a pipe that can be seen."""
        wrappers = self._turn.wrappers
        if self._named or wrappers.agent is None:
            return
        self._named = True
        pairs = tuple((pid, starttime(pid)) for pid in sorted(wrappers.pids))
        with contextlib.suppress(OSError):  # on a full disk what can be seen has to do
            self._folder.write_identity(self._desk.identity._replace(wrappers=pairs))

    def _end_once(self, now: float) -> None:
        if self._turn.record is None or self._linger_due is not None:
            return
        self._linger_due = now + self._turn.limits.linger_s
        self._desk.serve(now)
        self._desk.tell_end()
        if not self._desk.attended:
            self._turn.sync()

    def _is_over(self, now: float) -> bool:
        waited = self._linger_due is not None and now >= self._linger_due
        return self._desk.released or (waited and self._turn.recorded)

    def _identity(self, launch: Launch, cgroup: str | None, surroundings: Surroundings) -> Identity:
        agent = self._turn.agent
        return Identity(
            version=VERSIONS[-1],
            pid=os.getpid(),
            starttime=starttime(os.getpid()),
            boot_id=boot_id(),
            pid_ns=pid_namespace(),
            socket=self._socket,
            agent_pid=agent.pid,
            agent_starttime=agent.starttime,
            started_at=self._turn.started_at,
            nonce=launch.nonce,
            pipes=agent.pipes,
            cgroup=cgroup,
            out_path=launch.spec.out_path,
            err_path=launch.spec.err_path,
            abilities=to_json(surroundings.abilities),
        )


def _read_launch(handle: int) -> Launch:
    """Raises ValueError when what the client handed over is no launch."""
    with open(handle, "rb") as file:
        return launch_from(json.load(file))


def _end_everything(group: AgentCgroup | None) -> None:
    """The launch failed half way: leave no agent behind. What does not die at once is the spawner's."""
    until = boot_now() + RETIRE_S
    try:
        while boot_now() < until:
            tree.signal_descendants(tree.descendants([os.getpid()]), signal.SIGKILL, adopter=os.getpid())
            os.waitpid(-1, os.WNOHANG)
            select.select((), (), (), 0.001)
    except ChildProcessError:
        pass
    if group is not None:
        group.remove()
