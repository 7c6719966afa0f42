"""What an upgrade does to the data. Whatever changes it does so in a process of its own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from overnight.clock import SystemClock, rfc3339
from overnight.compose.upgrade.apart import apart
from overnight.errors import StartRefused
from overnight.stores.sql import admin, migrate
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.library import driver

REHEARSAL: Final = "upgrade-rehearsal"
ROOM: Final = 2
"""Copies of the database that an upgrade wants room for."""


class Database(Protocol):
    """One database, as far as an upgrade goes."""

    @property
    def online(self) -> bool:
        """Whether the schema is changed while servers work on it: old ones go on with the new schema."""
        ...

    def revision(self) -> str | None:
        """Its schema now; None for a database that is empty or not there yet."""
        ...

    def outdated(self) -> bool:
        """Whether the new program needs another schema than this."""
        ...

    def rehearse(self) -> str:
        """Try out what can be tried without touching anything; what was tried. Raises StartRefused."""
        ...

    def back_up(self) -> Path | None:
        """A copy as it is now; None where the operator's own tools make them."""
        ...

    def migrate(self) -> None:
        """To the schema of the new program, or not at all. Raises StartRefused, DataInUse."""
        ...

    def take_back(self, to: str, backup: Path | None) -> str:
        """To what the old program can work on, with everything that was written meanwhile; what was done.

        Raises StartRefused when neither that nor the copy could be had.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteFile:
    """The database of one server, which has it alone: its schema changes between two servers."""

    path: Path
    online: bool = False

    def revision(self) -> str | None:
        """See `Database`."""
        if not self.path.is_file():
            return None
        connections = Connections(self.path, "FULL")
        link = connections.open(writing=False)
        try:
            return migrate.revision(link)
        except connections.errors as error:
            raise StartRefused(
                f"{self.path} cannot be read: {error}", mend="restore a copy with: overnight db restore FILE"
            ) from None
        finally:
            link.close()

    def outdated(self) -> bool:
        """See `Database`."""
        return self.revision() != migrate.HEAD

    def rehearse(self) -> str:
        """On a copy: there and back, and looked over both times."""
        found = self.revision()
        if found is None or not self.outdated():
            return "the schema stays as it is"
        self._want_room()
        folder = self.path.with_name(REHEARSAL)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            self._rehearse_on(folder / self.path.name, found)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return f"schema {found} to {migrate.HEAD} and back, on a copy"

    def _rehearse_on(self, copy: Path, found: str) -> None:
        _copy(self.path, copy)
        apart(lambda: _up(copy))
        _look_over(copy, migrate.HEAD)
        apart(lambda: _down(copy, found))
        _look_over(copy, found)

    def _want_room(self) -> None:
        size = sum(
            file.stat().st_size for file in self.path.parent.glob(self.path.name + "*") if _counts(file)
        )
        free = shutil.disk_usage(self.path.parent).free
        if free < ROOM * size:
            raise StartRefused(
                f"copies of the database need {ROOM * size // 1_000_000} MB, and {free // 1_000_000} MB are free",
                mend="make room, or delete old backups beside the database",
            )

    def back_up(self) -> Path | None:
        """See `Database`."""
        stamp = rfc3339(SystemClock().wall_ms()).replace(":", "").replace(".", "")
        target = self.path.with_name(f"{self.path.name}.before-upgrade.{stamp}.backup")
        _copy(self.path, target)
        return target

    def migrate(self) -> None:
        """See `Database`."""
        apart(lambda: _up(self.path))

    def take_back(self, to: str, backup: Path | None) -> str:
        """See `Database`."""
        found = self.revision()
        if found == to:
            return f"the schema is {to}, as before: nothing was taken back, and nothing is lost"
        try:
            apart(lambda: _down(self.path, to))
        except StartRefused as error:
            if backup is None:
                raise
            kept = apart(lambda: str(admin.restore(self.path, backup, SystemClock())))
            return (
                f"schema {found} could not be taken back to {to} ({error.detail}). The copy {backup} is in place; what "
                f"was written since is in {kept} alone"
            )
        return f"the schema is {to} again, with everything that was written meanwhile"


def _up(path: Path) -> None:
    _superfluous(admin.upgrade(path, SystemClock()))


def _down(path: Path, to: str) -> None:
    _superfluous(admin.downgrade(path, SystemClock(), to))


def _superfluous(copy: Path | None) -> None:
    """The copy that every migration makes of itself: there is one already."""
    if copy is not None:
        copy.unlink()


def _copy(path: Path, target: Path) -> None:
    try:
        admin.backup(path, target)
    except driver().Error as error:
        raise StartRefused(f"{path} could not be copied: {error}") from error


def _look_over(copy: Path, wanted: str) -> None:
    seen = admin.check(copy)
    problems = [*seen.problems, *([] if seen.revision == wanted else [f"its schema is {seen.revision}"])]
    if problems:
        raise StartRefused(f"the rehearsal on a copy did not come to schema {wanted}: {problems[0]}")


def _counts(file: Path) -> bool:
    return not file.name.endswith(".backup")
