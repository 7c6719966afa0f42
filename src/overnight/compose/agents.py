"""The backends that the configuration names, each with its adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from overnight.backends.acp.catalogue import acp_program
from overnight.backends.claude.backend import ClaudeProgram
from overnight.backends.codex.backend import CodexProgram
from overnight.backends.command.backend import CommandProgram
from overnight.backends.echo.backend import EchoBackend
from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.program import Program
from overnight.backends.process.settings import AgentAccess, ProgramSettings
from overnight.backends.process.spawner_client import SpawnerClient
from overnight.backends.remote.backend import RemoteBackend
from overnight.clock import Clock
from overnight.compose.confinement import secrets
from overnight.config.backends import BackendSettings
from overnight.config.paths import data_key, private_dir, runtime_dir
from overnight.config.settings import Settings
from overnight.ports.backend import Backend
from overnight.ports.sandbox import Sandbox
from overnight.workspaces.texts import Texts


def backends(
    settings: Settings, spawner: SpawnerClient, clock: Clock, sandbox: Sandbox, *,
    fence: Callable[[float], float] | None = None, access: AgentAccess | None = None,
) -> Iterator[Backend]:  # fmt: skip
    """Every configured backend. All programs share one spawner and one sandbox. `fence`: see `ProcessBackend`.

    `access`: how the built-in agent's processes reach their server; None: they do not.
    """
    files = Texts(hidden=tuple(secrets(settings)))
    for table in settings.backends:
        if table.kind == "echo":
            yield EchoBackend(clock, table.name)
        elif table.kind == "remote":
            yield RemoteBackend(clock, table.name)
        else:
            program = _program(_settings_of(table, settings, access), table, clock)
            yield ProcessBackend(
                program,
                spawner,
                clock=clock,
                data_dir=settings.data_dir,
                fence=fence,
                sandbox=sandbox,
                files=files,
            )


def home(settings: Settings) -> Path:
    """The home of the user whose agents these are."""
    return Path(settings.sources.environment.get("HOME") or Path.home())


def spawner(settings: Settings) -> SpawnerClient:
    """What starts keepers; one for each user and data directory."""
    runtime = private_dir(runtime_dir(settings.sources.environment) / data_key(settings.data_dir))
    library = settings.sources.environment.get("LD_LIBRARY_PATH")
    return SpawnerClient(
        settings.data_dir, runtime, environment={"LD_LIBRARY_PATH": library} if library else {}
    )


def here(settings: Settings, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the backends that a worker of ours can carry out: the others are for whoever leases over REST."""
    elsewhere = {table.name for table in settings.backends if table.kind == "remote"}
    return tuple(name for name in names if name not in elsewhere)


def _program(settings: ProgramSettings, table: BackendSettings, clock: Clock) -> Program:
    match table.kind:
        case "codex":
            return CodexProgram(settings, clock)
        case "claude":
            return ClaudeProgram(settings, clock)
        case "command" | "echo" | "remote":
            return CommandProgram(settings, clock)
        case kind:
            return acp_program(kind, settings, clock)


def _settings_of(table: BackendSettings, settings: Settings, access: AgentAccess | None) -> ProgramSettings:
    environment: Mapping[str, str] = settings.sources.environment
    return ProgramSettings(
        name=table.name,
        program=table.program,
        command=table.command,
        args=table.args,
        environment=table.environment,
        login=table.login,
        model=table.model,
        host=environment,
        user_home=Path(environment.get("HOME") or Path.home()),
        access=access,
        homes=settings.data_dir / "homes",
    )
