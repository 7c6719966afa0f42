"""The process of a worker: `overnight worker` starts it in its own place, once it has read its options.

What reads options would stay for days without being used again, and weighs 15 MiB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NoReturn

from overnight.cli import exits
from overnight.cli.output import say
from overnight.cli.staying import staying


def begin(
    *, overrides: Mapping[str, str], server: str | None, insecure: bool, exit_when_idle: float | None
) -> NoReturn:
    """Become a worker: the same process, with its id and its files, and a new program in it."""
    asked = {
        "overrides": dict(overrides),
        "server": server,
        "insecure": insecure,
        "exit_when_idle": exit_when_idle,
    }
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # -P: a file in the current directory must not be taken for one of our modules.
    os.execv(sys.executable, [sys.executable, *flags, "-P", "-m", __name__, json.dumps(asked)])  # noqa: S606


def work(
    *, overrides: Mapping[str, str], server: str | None, insecure: bool, exit_when_idle: float | None
) -> int:
    """Work until the end; the exit status. Raises OvernightError."""
    with staying():
        from overnight.config.settings import load

        settings = load(overrides=dict(overrides))
        for name in settings.sources.strangers():
            say(f"{name} is set, but there is no such setting")
        # Only now: settings that are wrong need not wait until the whole program is loaded.
        if server is not None:
            from overnight.compose import remote

            return remote.work(settings, server, insecure=insecure, exit_when_idle=exit_when_idle)
        from overnight.compose import worker

        return worker.work(settings, exit_when_idle=exit_when_idle)


if __name__ == "__main__":
    with exits.told():
        sys.exit(work(**json.loads(sys.argv[1])))
