"""The spawner: forks a keeper for each turn, and sweeps up after keepers that were killed.

One for each data directory, held by a lock. It is small on purpose: a keeper shares its memory, and costs about 3 ms.
Nothing secret passes through it: a launch is a file descriptor that only the keeper reads.

Started as `python -I -S -E -c "import sys; sys.path.insert(0, SRC); from overnight.keeper.spawner import main; main()"`
with DATA_DIR, RUNTIME_DIR and the seconds after which an idle one ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from functools import partial
from typing import NoReturn

from overnight.keeper import kernel, tree
from overnight.keeper.cgroup import AgentCgroup, own_directory, remove_stale
from overnight.keeper.connection import Connection, Refused, is_own_user, listen
from overnight.keeper.keeper import Surroundings, run_keeper
from overnight.keeper.kernel import boot_now
from overnight.keeper.loop import Loop, SignalPipe
from overnight.keeper.records import write_record
from overnight.keeper_protocol import (
    SPAWNER_LOCK,
    VERSIONS,
    ExitRecord,
    SpawnerIdentity,
    Step,
    agree,
    boot_id,
    decode,
    pid_namespace,
    read_identity,
    read_record,
    spawner_socket,
    starttime,
    to_json,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.25


class Spawner:
    """Serves launches until it is idle. Everything it knows can be lost: keepers do not depend on it."""

    def __init__(self, lock: int, data_dir: str, runtime_dir: str, idle_s: float) -> None:
        cgroup_dir = own_directory()
        if cgroup_dir is not None:
            remove_stale(cgroup_dir)
        self._surroundings = Surroundings(
            runtime_dir, cgroup_dir, kernel.abilities(cgroup=cgroup_dir is not None)
        )
        self._loop = Loop()
        self._signals = SignalPipe(self._loop, (signal.SIGCHLD, signal.SIGTERM))
        self._lock = lock
        self._path = spawner_socket(data_dir, runtime_dir)
        self._listener = listen(self._path)
        self._connections: list[Connection] = []
        self._keepers: dict[int, str] = {}
        """pid -> turn folder."""
        self._lost: list[str] = []
        """Turn folders of keepers that were killed, to be written up once their orphans are gone."""
        self._swept = 0
        self._sweep_due: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._idle_s = idle_s
        self._idle_since = boot_now()
        self._draining = False
        self._loop.watch(self._listener.fileno(), select.POLLIN, self._accept)

    def run(self) -> None:
        """Until there has been neither keeper nor client for a while."""
        while not self._is_over(boot_now()):
            self._serve()
            self._loop.wait((self._sweep_due, self._idle_due()))
            if signal.SIGTERM in self._signals.take():
                self._drain()
            self._reap()
            if self._sweep_due is not None and boot_now() >= self._sweep_due:
                self._sweep(boot_now())
        self._leave()

    def _busy(self) -> bool:
        return bool(
            self._keepers or self._lost or self._sweep_due or (self._connections and not self._draining)
        )

    def _idle_due(self) -> float | None:
        return None if self._busy() else self._idle_since + (0 if self._draining else self._idle_s)

    def _is_over(self, now: float) -> bool:
        if self._busy():
            self._idle_since = now
        due = self._idle_due()
        return due is not None and now >= due

    def _drain(self) -> None:
        """Told to end: make room for another spawner, but stay the net beneath our keepers until they have gone."""
        if not self._draining:
            self._draining = True
            self._leave()

    def _leave(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.forget(self._listener.fileno())
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._listener.close()
            os.close(self._lock)

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        if is_own_user(sock):
            self._connections.append(Connection(sock))
        else:
            sock.close()

    def _serve(self) -> None:
        for connection in [known for known in self._connections if known.closed]:
            self._loop.forget(connection.handle)
            self._connections.remove(connection)
        for connection in self._connections:
            events = select.POLLIN | (select.POLLOUT if connection.wants_write else 0)
            self._loop.watch(connection.handle, events, partial(self._heard, connection))

    def _heard(self, connection: Connection, _: int) -> None:
        connection.flush()
        for line in [] if connection.closed else connection.receive():
            try:
                self._answer(connection, line)
            except Refused as refused:
                connection.send(refused.message(0))
            except (ValueError, KeyError, TypeError) as error:
                connection.send(Refused("bad_message", repr(error)).message(0))

    def _answer(self, connection: Connection, line: bytes) -> None:
        message = decode(line)
        match message["type"]:
            case "launch":
                if agree(message["versions"]) is None:
                    raise Refused(
                        "no_common_version", f"this spawner speaks {VERSIONS}", versions=list(VERSIONS)
                    )
                self._launch(connection, str(message["turn_folder"]))
            case "ping":
                connection.send(
                    {
                        "type": "pong",
                        "version": VERSIONS[-1],
                        "pid": os.getpid(),
                        "keepers": len(self._keepers),
                        "abilities": to_json(self._surroundings.abilities),
                    }
                )
            case other:
                raise Refused("bad_message", f"no such request: {other}")

    def _launch(self, connection: Connection, turn_folder: str) -> None:
        if self._draining:
            raise Refused("draining", "this spawner is ending")
        if len(connection.handles) != 1:
            raise Refused("bad_message", "a launch comes with one file descriptor")
        try:
            pid = os.fork()
        except OSError as error:
            raise Refused("start_failed", f"fork: {error.strerror}") from error
        if pid == 0:
            self._become_keeper(connection)
        self._keepers[pid] = turn_folder
        connection.close()

    def _become_keeper(self, client: Connection) -> NoReturn:
        """In the child: keep the client and its descriptor, nothing else of the spawner."""
        try:
            sock, handle = client.sock, client.handles.pop()
            for connection in self._connections:
                if connection is not client:
                    connection.close()
            self._listener.close()
            self._signals.close()
            self._loop.close()
            os.close(self._lock)
            run_keeper(sock, handle, self._surroundings)
        except BaseException:  # noqa: BLE001 - a child must never return into the spawner's loop
            sys.excepthook(*sys.exc_info())
        os._exit(1)

    def _reap(self) -> None:
        """Bury children. A keeper that went without a record was killed: look for what it left.

        One that was stopped, by its agent perhaps, is let go on.
        """
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if pid == 0:
                    return
                if os.WIFSTOPPED(status):
                    if pid in self._keepers:
                        os.kill(pid, signal.SIGCONT)
                    continue
                folder = self._keepers.pop(pid, None)
                if folder is not None and os.path.isdir(folder):
                    self._look_after(folder)
        except ChildProcessError:
            return

    def _look_after(self, folder: str) -> None:
        if read_identity(folder) is not None and read_record(folder) is None:
            self._lost.append(folder)
        if self._lost or self._orphans():
            self._sweep_due, self._pause_s = boot_now(), FIRST_PAUSE_S

    def _orphans(self) -> list[int]:
        """A child of ours that is no keeper belonged to a keeper that is dead."""
        return [pid for pid in tree.children_of(os.getpid()) if pid not in self._keepers]

    def _sweep(self, now: float) -> None:
        groups = [AgentCgroup(path) for path in map(_cgroup_of, self._lost) if path is not None]
        for group in groups:
            group.kill()
        orphans = self._orphans()
        found = dict.fromkeys(orphans, os.getpid()) | tree.descendants(orphans)
        self._swept += len(tree.signal_descendants(found, signal.SIGKILL, adopter=os.getpid()))
        if orphans or any(group.members() for group in groups):
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            self._sweep_due = now + self._pause_s
            return
        for group in groups:
            group.remove()
        for folder in self._lost:
            write_record(folder, _lost_record(folder, self._swept))
        self._sweep_due, self._swept = None, 0
        self._lost.clear()


def _cgroup_of(folder: str) -> str | None:
    identity = read_identity(folder)
    return identity.cgroup if identity is not None else None


def _lost_record(folder: str, swept: int) -> ExitRecord:
    """What can be said about a turn whose keeper was killed. Bytes that it had not written are lost."""
    identity = read_identity(folder)
    now = time.time()
    return ExitRecord(
        reason="keeper_lost",
        exit_code=None,
        signal=None,
        started_at=identity.started_at if identity is not None else now,
        ended_at=now,
        stdout_bytes=_size(identity.out_path if identity is not None else ""),
        stderr_bytes=_size(identity.err_path if identity is not None else ""),
        steps=(Step("sweep", round(now - identity.started_at, 3), swept),) if swept and identity else (),
        detail="the keeper was killed; what it left was swept by the spawner",
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _take_lock(data_dir: str) -> int | None:
    """The lock of this data directory; None when another spawner has it."""
    handle = os.open(
        f"{data_dir}/{SPAWNER_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _sign(lock: int) -> None:
    """Leave who we are in the lock, for a client that finds it held but nobody answering. A full disk may refuse."""
    me = SpawnerIdentity(os.getpid(), starttime(os.getpid()), boot_id(), pid_namespace())
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(to_json(me)).encode("ascii"), 0)


def main() -> None:
    """Take the lock, go to the background, serve. The foreground process ends with 0 once someone can be reached."""
    data_dir, runtime_dir, idle_s = sys.argv[1:4]
    os.umask(0o077)
    os.chdir("/")
    lock = _take_lock(data_dir)
    if lock is None:
        return
    ready, report = os.pipe()
    if os.fork() > 0:
        os.close(report)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    kernel.set_name("ovn-spawner")
    kernel.forbid_dumps()
    _sign(lock)
    spawner = Spawner(lock, data_dir, runtime_dir, float(idle_s))
    os.write(report, b".")
    os.close(report)
    spawner.run()
