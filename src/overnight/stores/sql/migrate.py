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

HEAD: Final = "0004"
"""The revision that `schema.py` describes."""
OLDEST_PROGRAM: Final = "0003"
"""The oldest revision whose programs may work on that schema; the newest revision's file says the same."""


USABLE_FROM: Final = "schema.usable_from"
"""The installation's key for the oldest revision whose programs may still work on this schema."""
_TABLES: Final = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
    "postgres": "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1",
}


def table_names(link: Link) -> list[str]:
    """The tables that are there, the database's own left out; on Postgres those of the current schema."""
    return [row[0] for row in link.rows(_TABLES[link.dialect])]


def revision(link: Link) -> str | None:
    """The revision of the database; None for an empty one. Raises UnsafeDatabase when the tables are not ours."""
    tables = table_names(link)
    rows = link.rows("SELECT version_num FROM alembic_version") if "alembic_version" in tables else []
    if not rows and not set(tables) - {"alembic_version"}:
        return None
    if not rows:
        raise UnsafeDatabase("it is a database of another program")
    return str(rows[0][0])


def prepare(path: Path, connections: Connections, clock: Clock) -> None:
    """Make the schema in an empty file, leave one of today as it is, migrate an older one after a backup.

    Raises UnsafeDatabase for one that a newer Overnight has made, or that is none of ours.
    """
    link = connections.open(writing=True)
    try:
        if revision(link) is None:
            link.script("BEGIN IMMEDIATE")
            create(link)
            link.script("COMMIT")
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
    """The schema of today in an empty database; the caller's transaction is to be committed."""
    name = link.dialect
    for table in ALL_TABLES:
        link.script(ddl(CreateTable(table), name))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if (
                name == "postgres"
            ):  # the same rows as on SQLite; said here, as saying it there would load that dialect
                index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
            link.script(ddl(CreateIndex(index), name))
    link.script("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    link.script(f"INSERT INTO alembic_version VALUES ('{HEAD}')")  # noqa: S608 -- our own words
    link.script("INSERT INTO counters (name, value) VALUES ('change', 0)")
    link.script(f"INSERT INTO installation (key, value) VALUES ('{USABLE_FROM}', '{OLDEST_PROGRAM}')")  # noqa: S608
