"""What a command for operators says of a Postgres database with which it can do nothing, and how to mend that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from overnight.errors import DataInUse, NotFound, StartRefused, UnsafeDatabase
from overnight.stores.sql import postgres_admin
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.testing.services.postgres import USER, PostgresServer


@pytest.fixture
def poor(postgres_server: PostgresServer, postgres_url: str) -> Iterator[str]:
    """The database as somebody sees it who may make nothing in it."""
    name = postgres_url.split("/")[3].partition("?")[0]
    user = f"poor_{name}"
    postgres_server.execute(f"CREATE ROLE {user} LOGIN")
    postgres_server.execute(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC", name
    )  # as it is from Postgres 15 on
    yield postgres_url.replace(f"//{USER}@", f"//{user}@")
    postgres_server.execute(f"DROP ROLE {user}")


def test_an_empty_database_has_nothing_to_check(postgres_url: str) -> None:
    with pytest.raises(NotFound, match="is empty") as refused:
        postgres_admin.check(postgres_url)
    assert "overnight db upgrade" in refused.value.mend


def test_a_database_of_another_program_is_named(postgres_server: PostgresServer, postgres_url: str) -> None:
    postgres_server.execute("CREATE TABLE other (pk INT)", postgres_url.split("/")[3].partition("?")[0])
    with pytest.raises(UnsafeDatabase, match="another program") as refused:
        postgres_admin.check(postgres_url)
    assert refused.value.mend


def test_a_user_who_may_make_no_tables_is_told_how_to_mend_it(poor: str) -> None:
    with pytest.raises(StartRefused, match="permission denied") as refused:
        postgres_admin.make_or_upgrade(poor)
    assert "OWNER" in refused.value.mend


def test_a_database_that_is_not_there_is_told_with_what_to_look_at(postgres_url: str) -> None:
    with pytest.raises(StartRefused, match="nowhere") as refused:
        postgres_admin.check(postgres_url.replace(postgres_url.split("/")[3].partition("?")[0], "nowhere"))
    assert "database in the address" in refused.value.mend


def test_a_schema_that_never_was_is_not_said_to_be_that_of_the_database(postgres_url: str) -> None:
    postgres_admin.make_or_upgrade(postgres_url)
    with pytest.raises(UnsafeDatabase, match="there is no schema 0815") as refused:
        postgres_admin.downgrade(postgres_url, "0815")
    assert "0001, 0002" in refused.value.mend


def test_who_uses_a_database_is_seen_before_its_schema_goes_back(postgres_url: str) -> None:
    postgres_admin.make_or_upgrade(postgres_url)
    postgres_admin.expect_nobody(postgres_url)
    server = PostgresConnections(postgres_url).open(writing=False)
    try:
        with pytest.raises(DataInUse, match="1 connections"):
            postgres_admin.expect_nobody(postgres_url)
    finally:
        server.close()
