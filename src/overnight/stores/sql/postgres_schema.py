"""Which schema a Postgres database has: made when there is none, refused when it does not fit this program."""

from __future__ import annotations

from typing import Final

from overnight.errors import SchemaOutdated, UnsafeDatabase
from overnight.stores.sql import migrate
from overnight.stores.sql.copying import UNFINISHED
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.stores.sql.statements import Link

WRITE_LOCK: Final = 6_006_845_273_517_881
"""The advisory lock under which all writing goes, one transaction at a time. Never change it: programs of different
versions write side by side.
"""
BEGUN: Final = ("BEGIN", f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
BEGIN: Final = "; ".join(BEGUN)


def prepare(connections: PostgresConnections) -> None:
    """Make the schema in an empty database, whoever comes first; make sure that it fits in any other.

    Raises SchemaOutdated for one of an earlier Overnight, UnsafeDatabase for one that this program must not touch.
    """
    if make(connections):
        return
    link = connections.open(writing=True)
    try:
        check(link)
    finally:
        link.close()


def make(connections: PostgresConnections) -> bool:
    """Make the schema if the database is empty; whether it was. Raises UnsafeDatabase when it is none of ours."""
    link = connections.open(writing=True)
    try:
        link.script(BEGIN)
        _expect_place(link)
        if migrate.revision(link) is not None:
            return False
        migrate.create(link)
        link.script("COMMIT")
        return True
    finally:
        link.close()


def check(link: Link) -> None:
    """Raises SchemaOutdated, or UnsafeDatabase, when this program cannot work on the schema as it is."""
    found = migrate.revision(link)
    if found is None:
        raise UnsafeDatabase("the database is empty")
    if found != migrate.HEAD:
        _expect_newer(link, found)
    if fact(link, UNFINISHED) is not None:
        raise UnsafeDatabase(
            "a copy into this database was begun and never finished",
            mend="empty it (DROP SCHEMA … CASCADE, CREATE SCHEMA …) and copy again",
        )


def _expect_newer(link: Link, found: str) -> None:
    if found < migrate.HEAD:
        raise SchemaOutdated(
            f"the database has schema {found}, this program needs {migrate.HEAD}", mend="overnight db upgrade"
        )
    oldest = fact(link, migrate.USABLE_FROM)
    if oldest is None or oldest > migrate.HEAD:
        raise UnsafeDatabase(
            f"the database has schema {found}, on which programs that know only {migrate.HEAD} cannot work",
            mend="upgrade Overnight on this machine",
        )


def fact(link: Link, key: str) -> str | None:
    """A single fact of the installation, whatever else has changed in the schema."""
    if "installation" not in migrate.table_names(link):
        return None
    rows = [value for name, value in link.rows("SELECT key, value FROM installation") if name == key]
    return rows[0] if rows else None


def _expect_place(link: PostgresLink) -> None:
    if link.rows("SELECT current_schema()::text")[0][0] is None:
        raise UnsafeDatabase(
            "the search path names no schema that is there",
            mend="CREATE SCHEMA it, or mend `options=-csearch_path=…` in the address",
        )
