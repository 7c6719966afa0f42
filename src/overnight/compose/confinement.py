"""The sandbox of this installation: what it hides, and what doctor says about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from overnight.config.paths import config_file, runtime_dir
from overnight.config.settings import Settings
from overnight.engine.doctor import Finding, Look, Status
from overnight.ports.sandbox import Sandbox
from overnight.workspaces.sandbox import Bubblewrap, NoSandbox
from overnight.workspaces.sandbox_network import Network
from overnight.workspaces.sandbox_places import Surroundings

_OTHERS_TOO = frozenset(
    map(Path, ("/", "/etc", "/opt", "/srv", "/usr/local", "/usr/local/etc", "/var", "/var/lib", "/var/log"))
)
"""Folders in which much lies besides a secret of ours."""


async def confinement(settings: Settings, home: Path) -> Sandbox:
    """The sandbox, tried out. Without one that works agents run as they did before, and everybody is told."""
    made = _sandbox(settings, home)
    await asyncio.to_thread(made.try_out)
    return made


def look(sandbox: Sandbox) -> Look:
    """Whether agents can be confined on this host now."""

    async def looked() -> Finding:
        trial = await asyncio.to_thread(sandbox.try_out)
        if trial.works:
            words = f"bubblewrap {trial.version} confines every agent; {trial.note}"
            status: Status = "warn" if trial.mend else "ok"
            return Finding(name="sandbox", status=status, message=words, mend=trial.mend)
        words = f"{trial.problem}: programs without a sandbox of their own work without any"
        return Finding(name="sandbox", status="warn", message=words, mend=trial.mend)

    return looked


def _sandbox(settings: Settings, home: Path) -> Sandbox:
    if settings.sandbox.mode == "off":
        return NoSandbox()
    around = Surroundings(
        user_home=home,
        secret=tuple(_own(settings)),
        hidden=settings.sandbox.hidden,
        readable=settings.sandbox.readable,
        writable=settings.sandbox.writable,
    )
    return Bubblewrap(
        around, program=settings.sandbox.program, network=Network(allowed=settings.sandbox.network)
    )


def secrets(settings: Settings) -> Iterator[Path]:
    """Whatever no agent is to see, nor anybody on its behalf."""
    yield from _own(settings)
    yield from settings.sandbox.hidden


def _own(settings: Settings) -> Iterator[Path]:
    """Whatever would let an agent decide for itself, act as its operator, or read what it was not given."""
    environment = settings.sources.environment
    yield settings.data_dir
    yield runtime_dir(environment)
    if environment.get("XDG_RUNTIME_DIR"):
        yield Path(environment["XDG_RUNTIME_DIR"])
    if not settings.postgres:
        for suffix in ("", "-wal", "-shm", "-journal"):
            yield Path(f"{settings.database}{suffix}")
        yield from _with_folder(settings.database, settings)
    for file in (*_configuration(settings, environment), settings.server.tls_key):
        if file is not None:
            yield from _with_folder(file, settings)
    if settings.log.file is not None:
        yield settings.log.file


def _with_folder(file: Path, settings: Settings) -> Iterator[Path]:
    """A file, and the folder around it: a file that is replaced while a turn runs is hidden no longer.

    Not where that folder is for much else, or has workspaces in it.
    """
    yield file
    folder = file.resolve().parent
    roots = [root.resolve() for root in settings.workspace_roots]
    if folder not in _OTHERS_TOO and not any(root.is_relative_to(folder) for root in roots):
        yield folder


def _configuration(settings: Settings, environment: Mapping[str, str]) -> Iterator[Path]:
    yield config_file(environment)
    if settings.sources.file is not None:
        yield settings.sources.file.path
    for entry in cast("Mapping[str, Mapping[str, str]]", settings.sources["secrets"]).values():
        if "file" in entry:
            yield Path(entry["file"]).expanduser()
