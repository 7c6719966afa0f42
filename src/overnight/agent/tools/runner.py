"""A small program above each command: nothing that the command has started outlives it, whatever it does.

It is a subreaper, so whoever parts from its parent, or begins a session of its own, becomes its child; when it has no
child any more, the command is over with all that belonged to it. It is told to end the command by the end of its
standard input, which also comes when the agent dies, and says how the command ended by one line of JSON there.

Standard library and the keeper's own parts alone, as it starts for every command.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Final

from overnight.keeper import tree
from overnight.keeper.kernel import become_subreaper, set_name

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.05
LEFT_OVER_GRACE_S: Final = 0.5
"""Between SIGTERM and SIGKILL for what a command leaves behind when it ends by itself."""
PATIENCE_S: Final = 10.0
"""How long processes that cannot die are waited for."""
_DEFAULTS: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


def main() -> None:
    """Run `sys.argv[2:]` and end all of it; `sys.argv[1]` is the grace in seconds when told to end."""
    set_name("overnight-run")
    become_subreaper()
    control = os.dup(0)
    os.set_inheritable(control, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _say(control, _carry_out(sys.argv[2:], control, float(sys.argv[1])))


def _carry_out(argv: list[str], control: int, grace_s: float) -> dict[str, object]:
    try:
        # A session of its own: no signal that the command sends to its group meets us.
        pid = os.posix_spawnp(argv[0], argv, os.environ, setsid=True, setsigmask=(), setsigdef=_DEFAULTS)
    except OSError as error:
        return {"refused": os.strerror(error.errno or 0), "missing": isinstance(error, FileNotFoundError)}
    status, told = _wait(pid, control)
    return _ended(status) | {"left": _end_all(pid, status, grace_s if told else LEFT_OVER_GRACE_S)}


def _wait(pid: int, control: int) -> tuple[int | None, bool]:
    """How the command itself ended, and whether we were told to end it before that."""
    try:
        watched = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return _wait_by_looking(pid, control)
    try:
        ready, _, _ = select.select([watched, control], [], [])
        if watched in ready:
            return os.waitpid(pid, 0)[1], False
        return None, True
    finally:
        os.close(watched)


def _wait_by_looking(pid: int, control: int) -> tuple[int | None, bool]:
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status, False
        if select.select([control], [], [], LONGEST_PAUSE_S)[0]:
            return None, True


def _end_all(pid: int, status: int | None, grace_s: float) -> int:
    """SIGTERM, grace, SIGKILL, until we have no child any more; how many are left when patience is over."""
    begun = time.monotonic()
    pause = FIRST_PAUSE_S
    signalled: set[int] = set()
    while _has_children():
        passed = time.monotonic() - begun
        below = tree.descendants([os.getpid()])
        if passed >= grace_s:
            tree.signal_descendants(below, signal.SIGKILL, adopter=os.getpid())
        else:
            asked = tree.signal_descendants(
                below, signal.SIGTERM, adopter=os.getpid(), done=signalled.__contains__
            )
            tree.signal_descendants(
                {each: below[each] for each in asked}, signal.SIGCONT, adopter=os.getpid()
            )
            signalled.update(asked)
        if status is None and not below:
            _end_group(pid, signal.SIGKILL if passed >= grace_s else signal.SIGTERM)
        if passed >= grace_s + PATIENCE_S:
            return len([each for each in below if tree.is_living(each)])
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)
    return 0


def _end_group(pid: int, signum: int) -> None:
    """Where processes cannot be listed there is only the command's own group."""
    try:
        os.killpg(pid, signum)
    except OSError:
        return


def _has_children() -> bool:
    """Whether any is left; those that are dead already are taken away."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _ended(status: int | None) -> dict[str, object]:
    if status is None:
        return {}
    code = os.waitstatus_to_exitcode(status)
    return {"exit_code": code if code >= 0 else 128 - code}


def _say(control: int, found: dict[str, object]) -> None:
    try:
        os.write(control, json.dumps(found).encode() + b"\n")
    except OSError:
        return  # the agent is gone
