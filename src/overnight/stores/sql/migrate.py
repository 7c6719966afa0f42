"""Which schema a database has, and bringing it to this program's. Alembic is loaded only when they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy.schema import CreateIndex, CreateTable

from overnight.clock import Clock
from overnight.errors import UnsafeDatabase
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.schema import metadata
from overnight.stores.sql.statements import Link, ddl

HEAD: Final = "0001"
"""The revision that `schema.py` describes."""


def revision(link: Link) -> str | None:
    """The revision of the database; None for an empty one. Raises UnsafeDatabase when the tables are not ours."""
    tables = {row[0] for row in link.raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise UnsafeDatabase("the file is a database of another program")
    row = link.raw.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


def prepare(path: Path, connections: Connections, clock: Clock) -> None:
    """Make the schema in an empty database, leave one of today as it is, migrate an older one after a backup.

    Raises UnsafeDatabase for one that a newer Overnight has made, or that is none of ours.
    """
    link = connections.open(writing=True)
    try:
        found = revision(link)
        if found is None:
            create(link)
    finally:
        link.close()
    if found not in {None, HEAD}:
        from overnight.stores.sql.migrations import upgrade  # noqa: PLC0415 -- costs start-up time, seldom needed

        upgrade(path, connections, clock, found=str(found))


def create(link: Link) -> None:
    """The schema of today in an empty database, in one transaction."""
    link.script("BEGIN IMMEDIATE")
    for table in metadata.sorted_tables:
        link.script(ddl(CreateTable(table)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            link.script(ddl(CreateIndex(index)))
    link.script("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    link.script(f"INSERT INTO alembic_version VALUES ('{HEAD}')")
    link.script("INSERT INTO counters (name, value) VALUES ('change', 0)")
    link.script("COMMIT")
