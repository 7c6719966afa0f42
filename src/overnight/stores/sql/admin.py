"""What `overnight db` does with the database file: check, back up, restore, upgrade, downgrade."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overnight.clock import Clock
from overnight.errors import NotFound, UnsafeDatabase
from overnight.stores.sql import backups, migrate
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.lock import DataLock
from overnight.stores.sql.sqlite_link import SqliteLink


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a check of the database found."""

    path: Path | str
    revision: str | None
    expected: str
    problems: tuple[str, ...]
    """What SQLite's integrity and foreign key checks complain about; empty when all is well."""
    bytes: int
    """Of the database file and its write-ahead log."""
    rows: dict[str, int]
    """How many, by table."""


def check(path: Path) -> Condition:
    """Look the whole database over; reads only, and may be done while a server runs. Raises NotFound."""
    connections = _existing(path)
    revision, problems, rows = None, list[str](), dict[str, int]()
    try:
        link = connections.open(writing=False)
        try:
            problems += _problems(link)
            revision = migrate.revision(link)
            rows = {name: link.count(name) for name in migrate.table_names(link)}
        finally:
            link.close()
    except (connections.errors, UnsafeDatabase) as error:
        problems.append(str(error))
    size = sum(file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists())
    return Condition(
        path=path, revision=revision, expected=migrate.HEAD, problems=tuple(problems), bytes=size, rows=rows
    )


def _problems(link: SqliteLink) -> Iterator[str]:
    for (found,) in link.raw.execute("PRAGMA integrity_check"):
        if found != "ok":
            yield str(found)
    for table, _, parent, _ in link.raw.execute("PRAGMA foreign_key_check"):
        yield f"{table} refers to a missing row of {parent}"


def backup(path: Path, target: Path) -> None:
    """A consistent copy, also of a live database. Raises NotFound, UnsafeDatabase, Conflict when `target` exists."""
    connections = _existing(path)
    with _explained(path, connections):
        backups.copy(connections, target)


def restore(path: Path, source: Path, clock: Clock) -> Path | None:
    """Put the copy `source` in the place of the database; where the old one was kept comes back.

    Raises DataInUse while a server runs, NotFound, and UnsafeDatabase when `source` is damaged or none of ours.
    """
    found = check(source)
    if found.problems or found.revision is None:
        reason = found.problems[0] if found.problems else "it has no schema"
        raise UnsafeDatabase(f"{source} cannot be restored: {reason}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DataLock(path.parent, clock)
    lock.acquire()
    try:
        return _replace(path, source, clock)
    finally:
        lock.release()


def upgrade(path: Path, clock: Clock, *, further: tuple[Path, ...] = ()) -> Path | None:
    """To the newest schema; the backup made before comes back, None when there was nothing to do.

    Raises DataInUse while a server runs, NotFound, and UnsafeDatabase for a schema that is not known.
    """
    return _move(path, clock, "head" if further else migrate.HEAD, further)


def downgrade(path: Path, clock: Clock, to: str, *, further: tuple[Path, ...] = ()) -> Path | None:
    """To an earlier schema, for an earlier Overnight; as `upgrade` otherwise."""
    return _move(path, clock, to, further)


def _move(path: Path, clock: Clock, to: str, further: tuple[Path, ...]) -> Path | None:
    connections = _existing(path)
    lock = DataLock(path.parent, clock)
    lock.acquire()
    try:
        with _explained(path, connections):
            return migrate.move(path, connections, clock, to=to, further=further)
    finally:
        lock.release()


@contextmanager
def _explained(path: Path, connections: Connections) -> Iterator[None]:
    """What the library says of the file, as words for people."""
    try:
        yield
    except connections.errors as error:
        raise UnsafeDatabase(
            f"{path} cannot be used: {error}",
            mend="see `overnight db check`; a copy is put in its place by: overnight db restore FILE",
        ) from error


def _replace(path: Path, source: Path, clock: Clock) -> Path | None:
    fresh = path.with_name(path.name + ".restoring")
    fresh.unlink(missing_ok=True)
    backups.copy(Connections(source, "FULL"), fresh)
    kept = None
    if path.exists():
        kept = path.with_name(f"{path.name}.replaced.{clock.wall_ms()}.backup")
        _keep(path, kept)
    for ending in ("-wal", "-shm"):  # they belong to the old file and would be applied to the new one
        path.with_name(path.name + ending).unlink(missing_ok=True)
    fresh.replace(path)
    backups.sync(path.parent)
    return kept


def _keep(path: Path, kept: Path) -> None:
    """The old database, as whole as it is to be had: one that is damaged is why it is replaced."""
    connections = Connections(path, "FULL")
    try:
        backups.copy(connections, kept)
    except connections.errors:
        for ending in ("", "-wal"):
            if (file := path.with_name(path.name + ending)).exists():
                shutil.copy2(file, kept.with_name(kept.name + ending))


def _existing(path: Path) -> Connections:
    if not path.is_file():
        raise NotFound(
            f"there is no database at {path}", mend="set OVERNIGHT_DATA_DIR, or make one with: overnight up"
        )
    return Connections(path, "FULL")
