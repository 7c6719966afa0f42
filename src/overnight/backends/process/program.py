"""What one agent program adds to the process layer: the command of a turn, and a pure codec of what it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.update import TurnOutcome, Update
from overnight.keeper_protocol import Interrupt
from overnight.ports.backend import TurnStart


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to be started: nothing is inherited besides what stands here."""

    argv: tuple[str, ...]
    """The program's absolute path first; never a shell line of ours, never the prompt."""
    env: Mapping[str, str]
    """The whole environment."""
    cwd: Path
    stdin: bytes = b""
    """Sent first, as message 1."""
    close_stdin: bool = True
    """Whether stdin is closed after it; agents wait for that."""
    interrupt: Interrupt | None = None
    """The program's own way to end a turn early; None goes straight to SIGTERM."""
    programs: tuple[Path, ...] = ()
    """Programs that it starts besides `argv[0]`: a sandbox shows them, wherever they lie."""
    readable: tuple[Path, ...] = ()
    """Files and folders that it reads and a sandbox would hide. Never anything that a run has named."""
    writable: tuple[Path, ...] = ()
    """Files and folders outside of workspace and home that it changes. Never anything that a run has named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How the process ended by itself. Exactly one of the two is set."""

    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a codec makes of the end: last updates, and the outcome."""

    outcome: TurnOutcome
    updates: tuple[Update, ...] = field(default=())


class Codec(Protocol):
    """Decodes one turn's output. Pure and deterministic: fed the same lines again, it is in the same state again.

    Lines come whole and in order within their stream, line end included (the very last one may lack it). `total` is
    the length of a line of which only the head is handed over because it is over the line limit.
    """

    def stdout(self, line: bytes, total: int | None = None) -> list[Update]:
        """What a line of standard output means; never raises for whatever bytes come."""
        ...

    def stderr(self, line: bytes, total: int | None = None) -> list[Update]:
        """The same for standard error."""
        ...

    def inject(self, text: str) -> bytes | None:
        """Bytes for stdin that put `text` into the running turn; None when the program cannot."""
        ...

    def finish(self, exit: Exit) -> Verdict:
        """The process has ended by itself and all output was fed. Never trusts the exit code alone."""
        ...


class Program(Protocol):
    """One kind of agent program, configured."""

    @property
    def name(self) -> str:
        """The backend's name."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    def command(self, start: TurnStart) -> Command:
        """The process of one attempt at one turn; may write files of ours beneath `start.home`.

        Raises BackendFailure when the program is not there.
        """
        ...

    def codec(self, start: TurnStart) -> Codec:
        """A fresh codec for that turn, for a start and an adoption alike."""
        ...

    async def check(self) -> BackendCheck:
        """See `Backend.check`."""
        ...

    def stamp(self) -> str:
        """See `Backend.stamp`."""
        ...
