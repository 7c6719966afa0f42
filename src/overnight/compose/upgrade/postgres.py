"""A Postgres database, as far as an upgrade goes: its schema changes while servers of both versions work on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from overnight.clock import SystemClock, rfc3339
from overnight.compose.upgrade.apart import apart
from overnight.compose.upgrade.program import Program
from overnight.errors import StartRefused
from overnight.stores.sql import migrate, postgres_admin, postgres_schema
from overnight.stores.sql.postgres_connections import PostgresConnections


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresDatabase:
    """See `Database`. Nothing is taken back from it: other machines may have moved on already."""

    url: str = field(repr=False)
    folder: Path
    """Where copies go."""
    copying: bool
    """Whether one is made: the operator may have better tools for it."""
    old: Program | None
    """What copies: a program reads its own schema and no other. None where it is no longer there."""
    online: bool = True

    def revision(self) -> str | None:
        """See `Database`. Raises StartRefused in its kinds."""
        return self._facts()[0]

    def _facts(self) -> tuple[str | None, str | None]:
        """The schema, and the oldest one whose programs may work on it."""
        connections = PostgresConnections(self.url)
        with postgres_admin.explained(connections):
            link = connections.open(writing=False)
            try:
                found = migrate.revision(link)
                return found, postgres_schema.fact(link, migrate.USABLE_FROM) if found else None
            finally:
                link.close()

    def outdated(self) -> bool:
        """See `Database`. A newer one is left as it is, where this program may work on it."""
        found, oldest = self._facts()
        return found is None or found < migrate.HEAD or oldest is None or oldest > migrate.HEAD

    def rehearse(self) -> str:
        """See `Database`."""
        found = self.revision()
        if found is None or not self.outdated():
            return "the schema stays as it is"
        if found > migrate.HEAD:
            raise StartRefused(f"the schema is {found}, on which this version cannot work")
        if found < migrate.OLDEST_PROGRAM:
            raise StartRefused(
                f"programs of schema {found} cannot work on schema {migrate.HEAD}, so they cannot go on meanwhile",
                mend="stop every server and worker, then: overnight db upgrade, and start them with this version",
            )
        if self.copying and self.old is None:
            raise StartRefused(
                f"no program is here that knows schema {found}, to make a copy of it",
                mend="make one with pg_dump, then: overnight upgrade --no-backup",
            )
        return f"programs of schema {found} go on working on schema {migrate.HEAD}"

    def back_up(self) -> Path | None:
        """See `Database`: a SQLite file, which `overnight db restore` takes; made when the schema is to change."""
        if not self.copying or self.old is None or not self.outdated():
            return None
        stamp = rfc3339(SystemClock().wall_ms()).replace(":", "").replace(".", "")
        target = self.folder / f"postgres.before-upgrade.{stamp}.backup"
        self.old.ask("db", "backup", str(target))
        return target

    def migrate(self) -> None:
        """See `Database`."""
        if self.outdated():
            apart(lambda: " to ".join(postgres_admin.upgrade(self.url)))

    def take_back(self, to: str, backup: Path | None) -> str:
        """See `Database`."""
        del backup
        found = self.revision()
        if found == to:
            return f"the schema is {to}, as before: nothing was taken back, and nothing is lost"
        return f"the schema stays at {found}, on which programs of schema {to} can work: nothing is lost"
