"""What an upgrade is going to do, found out before anything is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.compose.upgrade import servers
from overnight.compose.upgrade.database import Database, SqliteFile
from overnight.compose.upgrade.journal import Entry, Journal, Stage
from overnight.compose.upgrade.program import Program, own_prefix
from overnight.compose.upgrade.servers import Place, Server
from overnight.config.settings import Settings, load
from overnight.errors import ConfigInvalid, NotFound
from overnight.stores.sql import migrate
from overnight.version import VERSION

PACKAGE: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator said. Commands are words, not a line for a shell."""

    restart_command: tuple[str, ...] = ()
    """Starts the server anew by other means than a process in the background."""
    stop_command: tuple[str, ...] = ()
    """Ends a new server that those means would start again and again."""
    rollback_command: tuple[str, ...] = ()
    """Starts the old version by those means."""
    within_s: float = 60.0
    dry_run: bool = False
    copying: bool = True
    """Whether a copy of a Postgres database is made before its schema changes."""

    def stopping(self) -> tuple[str, ...]:
        """How to stop what the restart command has started; empty when nothing is known."""
        words = self.restart_command
        if (
            self.stop_command
            or not words
            or "restart" not in words
            or not any("systemctl" in w for w in words)
        ):
            return self.stop_command
        return tuple("stop" if word == "restart" else word for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """From `old` (None: no server runs) to `new`."""

    place: Place
    old: Server | None
    new: Program
    to_version: str
    database: Database
    revision: str
    options: Options
    picked_up: Stage | None
    """How far an interrupted upgrade had come, whose end this is."""
    way_back: bool
    """Whether the old program is still there to be started again."""
    began: float
    """Seconds of the epoch: what was started before has nothing to do with it."""

    @property
    def nothing_to_do(self) -> bool:
        """Whether all of it has happened already."""
        return (
            self.picked_up is None
            and not self.database.outdated()
            and (self.old is None or (self.old.version == self.to_version and not _changed_since(self.old)))
        )

    def words(self) -> str:
        """The plan in a line."""
        who = f"version {self.old.version or 'unknown'}" if self.old else "no server runs"
        schema = f"schema {self.revision}" + (f" to {migrate.HEAD}" if self.database.outdated() else " stays")
        by = " ".join(self.options.restart_command)
        start = f", started anew {f'by: {by}' if by else 'in the background'}" if self.old else ""
        back = ". The old program was replaced in place: going back would end with its data in order"
        return f"{who}, to version {self.to_version}; {schema}{start}{'' if self.way_back else back}"


def planned(settings: Settings, options: Options, journal: Journal) -> Plan:
    """Look at what runs and what lies there.

    Raises NotFound without a database, ConfigInvalid when the operator has to say more, StartRefused.
    """
    environment = settings.sources.environment
    place = Place(
        data_dir=settings.data_dir, environment=environment, certificate=settings.server.tls_certificate
    )
    old = servers.find(place)
    picked_up: Stage | None = None
    if old is None and journal.entry is not None:
        old, picked_up = _interrupted(journal.entry, environment), journal.entry.stage
    if old is not None:
        place, settings = _as_it_sees(old, settings)
    new = Program(
        prefix=own_prefix("upgrade"),
        cwd=old.program.cwd if old else Path.cwd(),
        environment=old.program.environment if old else environment,
    )
    way_back = old is None or _still_there(old)
    database = _database(settings, options, old.program if old and way_back else None)
    found = database.revision()
    if found is None:
        raise NotFound(
            f"there is no database at {settings.database_shown}", mend="nothing to upgrade: overnight up"
        )
    _refuse_what_cannot_go_well(old, options)
    revision = journal.entry.revision if picked_up and journal.entry else found
    return Plan(
        place=place, old=old, new=new, to_version=VERSION, database=database, revision=revision,
        options=options, picked_up=picked_up, way_back=way_back, began=time.time(),
    )  # fmt: skip


def _database(settings: Settings, options: Options, old: Program | None) -> Database:
    if not settings.postgres:
        return SqliteFile(path=settings.database)
    from overnight.compose.upgrade.postgres import PostgresDatabase  # noqa: PLC0415 -- the driver is for it alone

    return PostgresDatabase(
        url=settings.database_url,
        folder=settings.data_dir,
        copying=options.copying,
        old=old,
    )


def _still_there(old: Server) -> bool:
    """Whether the old program can be started again: the new one may have been put in its place."""
    there = old.program.version()
    if there is None or there != (old.version or there):
        return False
    return not (old.process and _same_program(old.program) and _newest() > old.process.create_time())


def _interrupted(entry: Entry, environment: Mapping[str, str]) -> Server:
    program = Program(prefix=entry.prefix, cwd=Path(entry.cwd), environment=dict(environment))
    return Server(program=program, arguments=entry.arguments, version=entry.version, managed=entry.managed)


def _as_it_sees(old: Server, own: Settings) -> tuple[Place, Settings]:
    """The settings of the running server, not those of the shell in which the upgrade was asked for."""
    seen = load(old.program.environment, cwd=old.program.cwd, overrides=_given(old))
    if seen.data_dir != own.data_dir:
        raise ConfigInvalid(f"the server keeps its data in {seen.data_dir}, not in {own.data_dir}")
    place = Place(
        data_dir=seen.data_dir,
        environment=old.program.environment,
        certificate=seen.server.tls_certificate,
    )
    return place, seen


def _given(old: Server) -> dict[str, str]:
    """`--data-dir` of its command line, in either spelling."""
    words = list(old.arguments)
    for at, word in enumerate(words):
        if word == "--data-dir" and at + 1 < len(words):
            return {"data_dir": str(old.program.cwd / words[at + 1])}
        if word.startswith("--data-dir="):
            return {"data_dir": str(old.program.cwd / word.partition("=")[2])}
    return {}


def _refuse_what_cannot_go_well(old: Server | None, options: Options) -> None:
    if old is not None and old.managed and not options.restart_command:
        raise ConfigInvalid(
            "systemd has started the server, and would not know of another one",
            mend='say how to start it: --restart-command "systemctl --user restart overnight"',
        )


def _changed_since(old: Server) -> bool:
    """Whether files of this program are newer than the server that runs it, or the server runs another one."""
    return old.process is None or not _same_program(old.program) or _newest() > old.process.create_time()


def _newest() -> float:
    """When a file of this program was last written."""
    return max(file.stat().st_mtime for file in PACKAGE.rglob("*.py"))


def _same_program(old: Program) -> bool:
    """Whether a program is this one, as far as its words tell; in another spelling it counts as another."""
    words = [word for word in old.prefix if word != "-P"]
    named = [str(old.cwd / word) if os.sep in word else word for word in words]
    return named == [word for word in own_prefix("upgrade") if word != "-P"]
