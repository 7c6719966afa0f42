"""What `overnight db` does with a Postgres database: upgrade, downgrade, check. Copies are made in `copying`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from overnight.errors import DataInUse, NotFound, OvernightError, UnsafeDatabase
from overnight.stores.sql import migrate, postgres_outcomes, postgres_schema
from overnight.stores.sql.admin import Condition
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink

LEAVES_S = 3.0
"""How long the server may take to see that a connection was closed."""
_PAUSE_S = 0.05
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND application_name LIKE 'overnight%'"
)
_INVALID = (
    "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE NOT i.indisvalid AND c.relnamespace = current_schema()::regnamespace"
)
_UNCHECKED = (
    "SELECT conname::text FROM pg_constraint WHERE NOT convalidated "
    "AND connamespace = current_schema()::regnamespace"
)


def upgrade(url: str, *, further: tuple[Path, ...] = ()) -> tuple[str, str]:
    """To the newest schema, while servers may work on it; from which revision to which.

    Raises NotFound for an empty database, UnsafeDatabase for a schema that is not known, StartRefused.
    """
    return _move(url, "head" if further else migrate.HEAD, further)


def make_or_upgrade(url: str) -> tuple[str | None, str]:
    """As `upgrade`; an empty database gets the schema of today, and had none before."""
    connections = PostgresConnections(url)
    with explained(connections):
        if postgres_schema.make(connections):
            return None, migrate.HEAD
    return upgrade(url)


def downgrade(url: str, to: str, *, further: tuple[Path, ...] = ()) -> tuple[str, str]:
    """To an earlier schema, for an earlier Overnight; as `upgrade` otherwise. Raises NotFound when there is none.

    Programs of this version cannot work on it: ask `expect_nobody` first.
    """
    return _move(url, to, further)


def expect_nobody(url: str) -> None:
    """Raises DataInUse while servers or workers use the database, StartRefused."""
    connections = PostgresConnections(url)
    with explained(connections):
        link = connections.open(writing=False)
        try:
            expect_alone(link, connections)
        finally:
            link.close()


def expect_alone(link: PostgresLink, connections: PostgresConnections) -> None:
    """Raises DataInUse while others than `link` use the database; those that have just left are waited for a little."""
    over = time.monotonic() + LEAVES_S
    while others := link.rows(_OTHERS)[0][0]:
        if time.monotonic() > over:
            raise DataInUse(
                f"{others} connections of servers or workers use {connections.address}", mend="end them first"
            )
        time.sleep(_PAUSE_S)
        link.rows(
            "SELECT pg_stat_clear_snapshot()::text"
        )  # within a transaction it would see the same for ever


def _move(url: str, to: str, further: tuple[Path, ...]) -> tuple[str, str]:
    from overnight.stores.sql import migrations  # noqa: PLC0415 -- Alembic is seldom needed

    connections = PostgresConnections(url)
    with explained(connections), unwrapped():
        return migrations.move_postgres(connections, to=to, further=further)


def check(url: str) -> Condition:
    """Look the whole database over; reads only, and may be done while servers run. Raises StartRefused."""
    connections = PostgresConnections(url)
    with explained(connections):
        link = connections.open(writing=False)
        try:
            link.script("SET statement_timeout = 0; BEGIN")
            revision, problems = _fits(link)
            if revision is None:
                raise _none_of_ours(connections, problems)
            return Condition(
                path=str(connections.address),
                revision=revision,
                expected=migrate.HEAD,
                problems=(*problems, *_problems(link)),
                bytes=link.size_bytes(),
                rows={name: link.count(name) for name in migrate.table_names(link)},
            )
        finally:
            link.close()


def _none_of_ours(connections: PostgresConnections, problems: list[str]) -> OvernightError:
    if problems:
        return UnsafeDatabase(f"{connections.address}: {problems[0]}", mend="name a database of its own")
    return NotFound(f"{connections.address} is empty", mend="make the schema with: overnight db upgrade")


def _fits(link: PostgresLink) -> tuple[str | None, list[str]]:
    revision = None
    try:
        revision = migrate.revision(link)
        if revision is not None:
            postgres_schema.check(link)
    except OvernightError as error:
        return revision, [str(error)]
    return revision, []


def _problems(link: PostgresLink) -> Iterator[str]:
    for (name,) in link.rows(_INVALID):
        yield f"the index {name} is not valid: REINDEX it"
    for (name,) in link.rows(_UNCHECKED):
        yield f"the constraint {name} was never checked"
    if link.rows("SHOW fsync")[0][0] != "on":
        yield "the server runs with fsync off: a crash may lose or corrupt what was committed"
    if link.rows("SHOW full_page_writes")[0][0] != "on":
        yield "the server runs with full_page_writes off: a crash may corrupt what was committed"


@contextmanager
def unwrapped() -> Iterator[None]:
    """The library's errors as they are, without Core's wrapping, which repeats statements and values."""
    try:
        yield
    except DBAPIError as error:
        raise error.orig or error from None


@contextmanager
def explained(connections: PostgresConnections) -> Iterator[None]:
    """What goes wrong with the connection, in words that show no password."""
    try:
        yield
    except connections.errors as error:
        if not postgres_outcomes.is_for_the_operator(error):
            raise
        raise postgres_outcomes.Outcomes(connections.address).at_start(error) from None
