"""An installed `overnight`: how to start it with other arguments, and what its commands say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from overnight.config.paths import private_dir
from overnight.errors import DataInUse, StartRefused

COMMAND_WITHIN_S: Final = 3600.0
"""A copy or a migration of a large database takes its time."""
_DATA_IN_USE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One version of Overnight: what stands before the arguments, and where and with what it is started."""

    prefix: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(repr=False)

    def ask(self, *arguments: str, **variables: str) -> str:
        """What the command prints. Raises DataInUse, or StartRefused with its words when it fails."""
        done = self._run(arguments, variables)
        if done.returncode == 0:
            return done.stdout
        words = " ".join(line.strip() for line in done.stderr.strip().splitlines()[-3:])
        kind = DataInUse if done.returncode == _DATA_IN_USE else StartRefused
        raise kind(f"overnight {' '.join(arguments)}: {words or f'status {done.returncode}'}")

    def version(self) -> str | None:
        """Which version lies there now; None when it cannot be started."""
        try:
            return self.ask("--version").strip().removeprefix("overnight ")
        except (OSError, StartRefused):
            return None

    def start(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """A server in the background, in a session of its own; its words are appended to `log`."""
        private_dir(log.parent)
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as out:
            return subprocess.Popen(
                [*self.prefix, *arguments],
                cwd=self.cwd,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _run(
        self, arguments: Sequence[str], variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *arguments],
            cwd=self.cwd,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=COMMAND_WITHIN_S,
        )


def own_prefix(command: str) -> tuple[str, ...]:
    """What this process was started by, before the name of its command."""
    given = list(sys.orig_argv)
    words = given[1 : given.index(command)] if command in given else ["-m", "overnight"]
    absolute = [os.path.abspath(word) if os.path.isfile(word) else word for word in words]
    # -P: a file in the current directory must not be taken for one of our modules.
    return (sys.executable, *absolute) if "-P" in absolute else (sys.executable, "-P", *absolute)
