"""The stages on which the store suites play: a SQLite file, or a Postgres of this test process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import postgres_schema
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage
from overnight.testing.services.postgres import PostgresServer


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    clock, notifier = ManualClock(), InprocNotifier()
    store = SqliteStore(tmp_path / "overnight.db", clock, notifier)
    await store.start()
    yield Stage(uow=store, notifier=notifier, clock=clock)
    await store.close()


@pytest.fixture(scope="session")
def reused(postgres_server: PostgresServer) -> str:
    """A database with our schema that the suites empty and use again: making one takes longer than most tests."""
    name = postgres_server.fresh()
    postgres_schema.prepare(PostgresConnections(postgres_server.url(name)))
    return name


@pytest.fixture
async def postgres_stage(
    postgres_server: PostgresServer, reused: str, anyio_backend: str
) -> AsyncIterator[Stage]:
    postgres_server.wipe(reused, "alembic_version", "installation", "counters")
    postgres_server.execute(
        "DELETE FROM installation WHERE key NOT LIKE 'schema.%'; UPDATE counters SET value = 0", reused
    )
    clock, notifier = ManualClock(), InprocNotifier()
    store = PostgresStore(postgres_server.url(reused), clock, notifier)
    await store.start()
    yield Stage(uow=store, notifier=notifier, clock=clock)
    await store.close()
