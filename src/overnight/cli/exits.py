"""Exit statuses, and how an error is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from overnight.cli.output import say
from overnight.errors import ConfigInvalid, DataInUse, InvalidInput, OvernightError, Unreachable


class Exit(IntEnum):
    """What the command's status means."""

    DONE = 0
    FAILED = 1
    """The run failed or was cancelled, or the server refused."""
    USAGE = 2
    """What was asked for makes no sense: options, settings, or a request that is not valid."""
    DATA_IN_USE = 3
    UNREACHABLE = 4
    WAITING = 5
    """The run waits for a person."""
    INTERRUPTED = 130


OF_STATE = {
    "completed": Exit.DONE,
    "failed": Exit.FAILED,
    "cancelled": Exit.FAILED,
    "waiting": Exit.WAITING,
    "blocked": Exit.WAITING,
    "paused": Exit.WAITING,
}
"""Status of a command that ends while its run is in that state."""


@contextmanager
def told() -> Iterator[None]:
    """The life of a command. Whatever goes wrong in it on purpose becomes words on stderr and an exit status."""
    for name in ("stdout", "stderr"):
        # Whoever closed one of them wants to hear nothing.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  until we exit
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its code instead of failing.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except OvernightError as error:
        sys.exit(report(error))
    except OSError as error:
        # A folder that may not be read, a disk that is full: the system's own words say it best.
        say(f"overnight: {error}")
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


def report(error: OvernightError) -> Exit:
    """Say what went wrong and how to mend it; the status to exit with."""
    say(f"overnight: {error.detail}")
    fields = error.extra.get("errors")
    for field in fields if isinstance(fields, list) else []:
        if isinstance(field, dict):
            words = f"{field.get('path') or field.get('in')}: {field.get('message')}"
            if words not in error.detail:
                say(f"  {words}")
    if error.mend:
        say(f"  {error.mend}")
    return status(error)


def status(error: OvernightError) -> Exit:
    """The exit status for an error."""
    match error:
        case DataInUse():
            return Exit.DATA_IN_USE
        case Unreachable():
            return Exit.UNREACHABLE
        case ConfigInvalid() | InvalidInput():
            return Exit.USAGE
        case _:
            return Exit.FAILED
