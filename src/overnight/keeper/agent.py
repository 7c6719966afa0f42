"""Start the agent: fork, put on exactly what it was given, exec. It sees three pipes and nothing of its keeper."""

from __future__ import annotations

import errno
import os
import select
import signal
from typing import NamedTuple, NoReturn

from overnight.keeper import kernel
from overnight.keeper.cgroup import AgentCgroup
from overnight.keeper_protocol import LaunchSpec, starttime

EXEC_TIMEOUT_MS = 30_000
"""A program on a file system that hangs must not hang its keeper for ever."""


# Looked up once, in the spawner: what we were born with, and what we ignore ourselves from now on.
_IGNORED = {
    *(signum for signum in signal.valid_signals() if signal.getsignal(signum) == signal.SIG_IGN),
    signal.SIGHUP,
    signal.SIGINT,
}


class Agent(NamedTuple):
    """A started agent, and our ends of its pipes (non-blocking)."""

    pid: int
    starttime: int
    stdin: int
    stdout: int
    stderr: int
    pipes: tuple[int, ...]
    """The pipes' inode numbers."""


class StartFailed(Exception):
    """The program could not be started; the text says at which step and why. Nothing is left of it."""


def start_agent(spec: LaunchSpec, group: AgentCgroup | None) -> Agent:
    """Start the program and return once it has been exec'd. Raises StartFailed."""
    ours, theirs = _pipes()
    said, report = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(spec, theirs, report, parent, group)
    for handle in (*theirs, report):
        os.close(handle)
    failure = _wait_for_exec(pid, said)
    if failure is not None:
        for handle in ours:
            os.close(handle)
        raise StartFailed(failure)
    for handle in ours:
        os.set_blocking(handle, False)
    inodes = tuple(os.fstat(handle).st_ino for handle in ours)
    return Agent(pid, starttime(pid), *ours, inodes)


def _pipes() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    return (stdin_write, stdout_read, stderr_read), (stdin_read, stdout_write, stderr_write)


def _wait_for_exec(pid: int, said: int) -> str | None:
    """None once exec has closed the pipe; else what the child said before it ended."""
    poll = select.poll()
    poll.register(said, select.POLLIN)
    try:
        if not poll.poll(EXEC_TIMEOUT_MS):
            os.kill(pid, signal.SIGKILL)
            failure = f"exec of the program took more than {EXEC_TIMEOUT_MS // 1000} s"
        else:
            failure = os.read(said, 4096).decode("utf-8", "replace")
    finally:
        os.close(said)
    if not failure:
        return None
    os.waitpid(pid, 0)
    return failure


def _become(
    spec: LaunchSpec, pipes: tuple[int, int, int], report: int, parent: int, group: AgentCgroup | None
) -> NoReturn:
    step = "preparing"
    try:
        os.setsid()
        kernel.die_with_parent(parent)
        if group is not None:
            group.enter()
        for target, handle in enumerate(pipes):
            os.dup2(handle, target)
        _close_all_but(report)
        _default_signals()
        os.umask(spec.umask)
        step = f"entering {spec.cwd}"
        os.chdir(spec.cwd)
        step = f"starting {spec.argv[0]}"
        os.execvpe(spec.argv[0], list(spec.argv), dict(spec.env))  # noqa: S606 - argv as given, never a shell
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        os.write(report, f"{step}: {error.strerror} ({name})".encode("utf-8", "replace")[:4096])
    except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happened
        os.write(report, f"{step}: {error!r}".encode("utf-8", "replace")[:4096])
    os._exit(127)


def _close_all_but(kept: int) -> None:
    """Everything is close-on-exec already; this is the second lock on the same door."""
    limit = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, kept)
    os.closerange(kept + 1, limit if limit > 0 else 65536)


def _default_signals() -> None:
    """Ignored signals and a blocked mask would be inherited across exec (Python ignores SIGPIPE)."""
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
