"""Which schema a database has, and bringing it to this program's. Alembic is loaded only when they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy.schema import CreateIndex, CreateTable

from overnight.clock import Clock
from overnight.errors import UnsafeDatabase
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.schema import ALL_TABLES
from overnight.stores.sql.statements import Link, ddl

HEAD: Final = "0002"
"""The revision that `schema.py` describes."""


def table_names(link: Link) -> list[str]:
    """The tables that are there, SQLite's own left out."""
    rows = link.raw.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    )
    return [row[0] for row in rows]


def revision(link: Link) -> str | None:
    """The revision of the database; None for an empty one. Raises UnsafeDatabase when the tables are not ours."""
    tables = table_names(link)
    if not tables:
        return None
    row = None
    if "alembic_version" in tables:
        row = (link.rows("SELECT version_num FROM alembic_version") or [None])[0]
    if row is None:
        raise UnsafeDatabase("the file is a database of another program")
    return str(row[0])


def prepare(path: Path, connections: Connections, clock: Clock) -> None:
    """Make the schema in an empty database, leave one of today as it is, migrate an older one after a backup.

    Raises UnsafeDatabase for one that a newer Overnight has made, or that is none of ours.
    """
    link = connections.open(writing=True)
    try:
        if revision(link) is None:
            create(link)
    finally:
        link.close()
    move(path, connections, clock, to=HEAD, further=())


def move(
    path: Path, connections: Connections, clock: Clock, *, to: str, further: tuple[Path, ...]
) -> Path | None:
    """Bring the schema to revision `to` after a backup, whose path comes back; None when it is there already."""
    link = connections.open(writing=False)
    try:
        found = revision(link)
    finally:
        link.close()
    if found is None or (found == to and not further):
        return None
    from overnight.stores.sql import migrations  # noqa: PLC0415 -- Alembic costs start-up time and is seldom needed

    return migrations.move(path, connections, clock, found=found, to=to, further=further)


def create(link: Link) -> None:
    """The schema of today in an empty database, in one transaction."""
    link.script("BEGIN IMMEDIATE")
    for table in ALL_TABLES:
        link.script(ddl(CreateTable(table)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            link.script(ddl(CreateIndex(index)))
    link.script("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    link.raw.execute("INSERT INTO alembic_version VALUES (?)", (HEAD,))
    link.script("INSERT INTO counters (name, value) VALUES ('change', 0)")
    link.script("COMMIT")
