"""The port to whatever confines an agent: it turns a command into one that runs inside walls.

The walls are made by the kernel for the whole process and everything that it starts, so they hold whatever the agent
program does about its own tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Level = Literal["read_only", "workspace_write"]
"""What a sandbox gives; `full_access` is the absence of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of trying the sandbox out on this host."""

    version: str | None = None
    """Of the program that makes it; None when it is not there."""
    problem: str = ""
    """Why no agent can be confined here; empty when one can."""
    mend: str = ""
    """What would make it work, or hold better."""
    note: str = ""
    """What the operator has chosen that makes it weaker or stronger, for doctor."""

    @property
    def works(self) -> bool:
        """Whether agents are confined."""
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one turn may see and change. Paths are absolute."""

    level: Level
    workspace: Path
    workspace_id: str | None = None
    """`device:inode` of the workspace that was checked: another directory in its place is refused; None: any."""
    home: Path
    """HOME of (session, backend), always writable."""
    programs: tuple[Path, ...] = ()
    """Programs that must be found. Like all that follows, the operator's choice and never the agent's."""
    path: str = ""
    """Folders of programs, in the form of PATH."""
    readable: tuple[Path, ...] = ()
    """Files and folders that would be hidden and are needed."""
    writable: tuple[Path, ...] = ()
    """Files and folders that are to be changed in place, such as a credential that is lent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confined:
    """A command that runs inside the sandbox."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment."""
    wrappers: int
    """Processes of the sandbox above the agent; each is the first child of the one before."""


class Sandbox(Protocol):
    """Confines commands. Every call may block on the disk or on a short process: use a thread."""

    @property
    def trial(self) -> Trial:
        """What the last `try_out` found; a sandbox that was never tried does not work.

        One that has worked goes on counting as working: should it break, turns fail instead of running without it.
        """
        ...

    def try_out(self) -> Trial:
        """Really start a confined process, and remember whether that went well."""
        ...

    def wrap(self, argv: tuple[str, ...], env: Mapping[str, str], cwd: Path, place: Place) -> Confined:
        """`argv` inside the walls of `place`, in the folder `cwd`. Never falls back to running it without them.

        Neither `argv` nor `env` opens anything: both may come from an agent.

        Raises BackendFailure `sandbox_failed` where that cannot be done.
        """
        ...

    def take_back(self, workspace: Path, since: float) -> tuple[Path, ...]:
        """Remove what would lead other programs elsewhere and was put into a writable workspace after `since`.

        Only names that could not be guarded because they were not there, and that nobody but git itself ever makes.
        `since` is in seconds of the wall clock. Returns what was removed; never raises.
        """
        ...
