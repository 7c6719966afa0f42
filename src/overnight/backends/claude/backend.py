"""The Claude Code program as a backend: its command line, its environment, its preflight."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from overnight.backends.claude.codec import ClaudeCodec
from overnight.backends.claude.memory import memory_copy
from overnight.backends.claude.preflight import CAPABILITIES, CREDENTIALS, credentials_of, preflight
from overnight.backends.process.findings import stamp_of
from overnight.backends.process.program import Command
from overnight.backends.process.settings import ProgramSettings, base_environment, lend
from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.keeper_protocol import Interrupt
from overnight.ports.backend import TurnStart

_SIGINT = 2
_QUIET: Mapping[str, str] = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
# Hooks, helpers, servers and addresses that a workspace brings along do nothing: only the settings of our own home
# are read, and no MCP server but those on the command line.
_OWN_SETTINGS = ("--setting-sources", "user", "--strict-mcp-config")
_READERS = "Read,Glob,Grep,TodoWrite"


class ClaudeProgram:
    """`claude -p` with the prompt on stdin. Its configuration folder lies in the home of (session, backend).

    It has no sandbox of its own: `read_only` leaves it the tools that read, everything else all tools.
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
        program = self._settings.need("claude")
        home = self._config_home(start.home)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        lent = lend(self._settings, f".claude/{CREDENTIALS}", home / CREDENTIALS)
        argv = [
            str(program),
            "-p",
            "--output-format",
            "stream-json",
            "--verbose",
            "--include-partial-messages",
        ]
        argv += [*_OWN_SETTINGS, *self._flags(start)]
        memory = memory_copy(start.workspace, start.folder)
        argv += ["--append-system-prompt-file", str(memory)] if memory else []
        argv += self._settings.args
        return Command(
            argv=tuple(argv),
            env=self._environment(start, home),
            cwd=start.workspace,
            stdin=start.prompt.encode(),
            interrupt=Interrupt(signal=_SIGINT),
            readable=(memory,) if memory else (),
            writable=(*lent, *([home] if self._own_home() else [])),
        )

    def codec(self, start: TurnStart) -> ClaudeCodec:
        """See `Program.codec`."""
        return ClaudeCodec(str(start.workspace))

    async def check(self) -> BackendCheck:
        """See `Program.check`: program, version, key or login."""
        return await preflight(self._settings, now_ms=self._clock.wall_ms(), stamp=self.stamp())

    def stamp(self) -> str:
        """See `Program.stamp`."""
        return stamp_of(self._settings, "claude")

    def _config_home(self, home: Path) -> Path:
        return self._own_home() or home / ".claude"

    def _own_home(self) -> Path | None:
        """The operator's choice. One beneath HOME is the agent's: what leads from there is nothing to rely on."""
        own = self._settings.environment.get("CLAUDE_CONFIG_DIR")
        return Path(own) if own else None

    def _flags(self, start: TurnStart) -> list[str]:
        flags: list[str] = []
        # Its sessions belong to the folder in which they began.
        if start.resume.get("session_id") and start.resume.get("cwd") == str(start.workspace):
            flags += ["--resume", str(start.resume["session_id"])]
        if start.sandbox == "read_only":
            flags += ["--permission-mode", "dontAsk", "--tools", _READERS, "--allowed-tools", _READERS]
        else:
            flags += ["--permission-mode", "bypassPermissions"]
        model = start.model or self._settings.model
        flags += ["--model", model] if model else []
        flags += ["--effort", start.effort] if start.effort else []
        return flags

    def _environment(self, start: TurnStart, home: Path) -> dict[str, str]:
        found = {**_QUIET, **base_environment(self._settings, start), **credentials_of(self._settings)}
        if os.geteuid() == 0:
            # As root it refuses to work without asking unless it is told that somebody has thought about it.
            found.setdefault("IS_SANDBOX", "1")
        return found | {"HOME": str(start.home), "CLAUDE_CONFIG_DIR": str(home), "NO_COLOR": "1"}
