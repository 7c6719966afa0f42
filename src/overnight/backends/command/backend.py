"""Any configured program as a backend."""

from __future__ import annotations

from pathlib import Path

from overnight.backends.command.codec import CommandCodec
from overnight.backends.process.findings import Findings, stamp_of
from overnight.backends.process.program import Command
from overnight.backends.process.settings import ProgramSettings, base_environment, turn_environment
from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.ports.backend import TurnStart

CAPABILITIES = Capabilities()


class CommandProgram:
    """The operator's `command` and `args`, started in the workspace with the prompt on stdin.

    Its environment tells it what it is part of: OVERNIGHT_RUN_ID, OVERNIGHT_TURN, OVERNIGHT_ATTEMPT, OVERNIGHT_FENCE
    (the fencing token of the hold that started it), OVERNIGHT_SANDBOX and, where the run names them, OVERNIGHT_MODEL
    and OVERNIGHT_EFFORT.
    """

    def __init__(self, settings: ProgramSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    @property
    def name(self) -> str:
        """See `Program.name`."""
        return self._settings.name

    @property
    def capabilities(self) -> Capabilities:
        """See `Program.capabilities`."""
        return CAPABILITIES

    def command(self, start: TurnStart) -> Command:
        """See `Program.command`."""
        program = self._settings.need("")
        return Command(
            argv=(str(program), *self._settings.command[1:], *self._settings.args),
            env=base_environment(self._settings, start) | self._told(start),
            cwd=start.workspace,
            stdin=start.prompt.encode(),
            programs=tuple(path for path in map(Path, self._settings.command[1:]) if path.is_absolute()),
        )

    def codec(self, start: TurnStart) -> CommandCodec:  # noqa: ARG002  # the port names it
        """See `Program.codec`."""
        return CommandCodec()

    async def check(self) -> BackendCheck:
        """See `Program.check`: that the program is there is all that can be known without running it."""
        findings = Findings()
        if self._settings.find("") is None:
            findings.fail(
                "program_missing",
                f"the program {self._settings.command[0]} was not found or may not be executed",
                f"correct command in [backends.{self.name}]",
            )
        return findings.check(self.name, CAPABILITIES, now_ms=self._clock.wall_ms(), stamp=self.stamp())

    def stamp(self) -> str:
        """See `Program.stamp`."""
        return stamp_of(self._settings, "")

    def _told(self, start: TurnStart) -> dict[str, str]:
        found, model = turn_environment(start), start.model or self._settings.model
        found |= {"OVERNIGHT_MODEL": model} if model else {}
        return found | ({"OVERNIGHT_EFFORT": start.effort} if start.effort else {})
