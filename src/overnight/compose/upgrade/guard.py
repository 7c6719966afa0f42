"""Two processes for one upgrade: whichever of them is killed, the other sees to it that a server is left.

The second one does the work, in a session of its own, so that a closed terminal does not end it. The first one shows
what it says; when it hears no last word, it takes everything back.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from overnight.clock import SystemClock, rfc3339
from overnight.compose.upgrade.journal import Journal
from overnight.compose.upgrade.plan import Plan
from overnight.compose.upgrade.steps import Steps
from overnight.compose.upgrade.telling import Outcome, Tell, Told

LOG: Final = "upgrade.log"
END: Final = "end"


def carried_out(plan: Plan, journal: Journal, tell: Tell) -> Outcome:
    """What the plan comes to; how it ended. Every step is told, and appended to `upgrade.log` in the data directory."""
    if plan.nothing_to_do:
        return Outcome.NOTHING_TO_DO
    if plan.options.dry_run:
        return Steps(plan, journal, tell).rehearsed()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_work(plan, journal, writing))
    os.close(writing)
    try:
        outcome = _listen(reading, tell)
    except KeyboardInterrupt:
        words = f"it goes on by itself; {plan.place.data_dir / LOG} says how it ends"
        tell(Told(step="interrupted", state="done", message=words))
        raise
    os.waitpid(child, 0)
    if outcome is not None:
        return outcome
    tell(Told(step="guard", state="failed", message="the upgrade was killed; everything goes back"))
    return _mended(plan, journal, tell)


def _mended(plan: Plan, journal: Journal, tell: Tell) -> Outcome:
    """The way back after a kill at any moment; nothing, when the old server has not even been asked."""
    journal.reread()
    if journal.entry is None and plan.old is not None and plan.old.alive:
        return Outcome.REFUSED
    return Steps(plan, journal, _logged(plan, tell)).back()


def _work(plan: Plan, journal: Journal, writing: int) -> int:
    """In the second process: all the steps; its exit status is nobody's business."""
    os.setsid()
    tell = _logged(plan, lambda told: _pipe(writing, told))
    steps = Steps(plan, journal, tell)
    outcome = steps.back() if plan.picked_up == "rolling_back" else steps.forward()
    tell(Told(step=END, state=outcome.value))
    return 0


def _pipe(writing: int, told: Told) -> None:
    try:
        os.write(writing, json.dumps(told.to_json()).encode() + b"\n")
    except BrokenPipeError:
        return  # whoever listened has been killed; the log has every word


def _logged(plan: Plan, tell: Tell) -> Tell:
    file: Path = plan.place.data_dir / LOG

    def both(told: Told) -> None:
        line = json.dumps({"at": rfc3339(SystemClock().wall_ms()), **told.to_json()}) + "\n"
        with suppress(OSError):  # a full disk is no reason to go back
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        tell(told)

    return both


def _listen(reading: int, tell: Tell) -> Outcome | None:
    """Pass on what the other process says; None when it ends without its last word."""
    outcome = None
    for told in _told(reading):
        if told.step == END:
            outcome = Outcome(told.state)
        else:
            tell(told)
    return outcome


def _told(reading: int) -> Iterator[Told]:
    with os.fdopen(reading, "r", encoding="utf-8") as lines:
        for line in lines:
            try:
                yield Told(**json.loads(line))
            except ValueError:
                return  # it was killed in the middle of a line
