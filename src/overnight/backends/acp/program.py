"""An agent of the Agent Client Protocol as a backend: its command, its home, its codec, its preflight."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from overnight.backends.acp.agent import Agent, Equipment, Executable
from overnight.backends.acp.codec import AcpCodec
from overnight.backends.acp.preflight import credentials_of, preflight
from overnight.backends.acp.script import Script
from overnight.backends.process.findings import stamp_of
from overnight.backends.process.program import Command
from overnight.backends.process.settings import (
    ProgramSettings,
    base_environment,
    host_environment,
    lend,
    turn_environment,
)
from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.errors import BackendFailure
from overnight.ports.backend import TurnStart


class AcpProgram:
    """One agent program, as `agent` describes it. Its HOME is the home of (session, backend)."""

    def __init__(self, settings: ProgramSettings, clock: Clock, agent: Agent) -> None:
        self._settings = settings
        self._clock = clock
        self._agent = agent

    @property
    def name(self) -> str:
        """See `Program.name`."""
        return self._settings.name

    @property
    def capabilities(self) -> Capabilities:
        """See `Program.capabilities`."""
        return self._agent.capabilities

    @property
    def patience_s(self) -> float:
        """See `TalkingProgram.patience_s`."""
        return self._agent.patience_s

    def command(self, start: TurnStart) -> Command:
        """See `Program.command`."""
        found = self._executable()
        equipment = self._equipment(start)
        _furnish(start.home, equipment)
        self._agent.prepare(start)
        lent = [
            path for source, to in equipment.lent for path in lend(self._settings, source, start.home / to)
        ]
        return Command(
            argv=(*found.argv, *equipment.args, *self._settings.args),
            env=self._environment(start, equipment),
            cwd=start.workspace,
            stdin=self.codec(start).opening,
            close_stdin=False,
            programs=found.programs,
            readable=(*found.readable, *equipment.readable),
            writable=(*lent, *equipment.writable),
        )

    def codec(self, start: TurnStart) -> AcpCodec:
        """See `Program.codec`."""
        agent, equipment = self._agent, self._equipment(start)
        known = start.resume if start.resume.get("cwd") == str(start.workspace) else {}
        session, cost = known.get("session_id"), known.get("cost")
        return AcpCodec(
            Script(
                workspace=str(start.workspace),
                prompt=start.prompt,
                resume=session if isinstance(session, str) else None,
                cost_before=float(cost) if isinstance(cost, int | float) else 0.0,
                mode=equipment.mode,
                model=equipment.model,
                effort=equipment.effort,
                auth=agent.auth(self._environment(start, equipment)),
                session=equipment.session,
                reads=agent.reads,
                writes=agent.writes,
                forms=agent.forms,
                usage=agent.usage,
                error_prefix=agent.error_prefix,
                history_ends_with=agent.history_ends_with,
            )
        )

    def tool_environment(self, start: TurnStart) -> Mapping[str, str]:
        """See `TalkingProgram.tool_environment`: nothing of what the operator gives the agent itself."""
        shared = ("GIT_", "PYTHONUNBUFFERED", "HOME")
        base = base_environment(self._settings, start)
        plain = {name: value for name, value in base.items() if name.startswith(shared)}
        return {**host_environment(self._settings), **plain, **start.environment, "HOME": str(start.home)}

    async def check(self) -> BackendCheck:
        """See `Program.check`: program, version, key or login."""
        now = self._clock.wall_ms()
        return await preflight(self._settings, self._agent, now_ms=now, stamp=self.stamp())

    def stamp(self) -> str:
        """See `Program.stamp`."""
        return stamp_of(self._settings, self._agent.program)

    def _executable(self) -> Executable:
        program = self._settings.need(self._agent.program)
        why = self._agent.unfit(program)
        if why is not None:
            raise BackendFailure(why, code="program_unfit", retryable=False)
        return self._agent.find(program)

    def _equipment(self, start: TurnStart) -> Equipment:
        return self._agent.equip(self._settings, start, start.approval_policy != "autonomous")

    def _environment(self, start: TurnStart, equipment: Equipment) -> dict[str, str]:
        keys = credentials_of(self._settings, self._agent)
        found = {
            **base_environment(self._settings, start),
            **keys,
            **equipment.env,
            **turn_environment(start),
        }
        return found | {"HOME": str(start.home), "NO_COLOR": "1"}


def _furnish(home: Path, equipment: Equipment) -> None:
    """Write our files anew. The home is the agent's: a link that it has left there is removed, not followed."""
    for relative, text in equipment.files.items():
        target = home / relative
        for folder in reversed([up for up in target.parents if up != home and up.is_relative_to(home)]):
            if folder.is_symlink():
                folder.unlink()
            folder.mkdir(mode=0o700, exist_ok=True)
        target.unlink(missing_ok=True)
        descriptor = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
