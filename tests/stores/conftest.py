"""The stages on which the store suites play: a SQLite file, or a Postgres of this test process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.stores.acts import Told
from tests.stores.wire import Wire, wire

from overnight.clock import SystemClock
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import postgres_schema
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.services.postgres import postgres as start_postgres

CLOCK = SystemClock()


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


@pytest.fixture
def url(postgres_server: PostgresServer, reused: str) -> str:
    postgres_server.execute("DELETE FROM installation WHERE key NOT LIKE 'schema.%'", reused)
    return postgres_server.url(reused)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def store(url: str, told: Told) -> AsyncIterator[PostgresStore]:
    found = PostgresStore(url, CLOCK, told)
    await found.start()
    yield found
    await found.close()


@pytest.fixture
def cuttable(postgres_server: PostgresServer) -> Iterator[Wire]:
    with wire(postgres_server.port) as found:
        yield found


@pytest.fixture
async def over_wire(
    postgres_server: PostgresServer, reused: str, url: str, cuttable: Wire, told: Told
) -> AsyncIterator[PostgresStore]:
    address = f"postgresql://overnight@127.0.0.1:{cuttable.port}/{reused}"
    found = PostgresStore(address, CLOCK, told)
    await found.start()
    yield found
    await found.close()


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """A server of this module alone, which may be hurt."""
    with start_postgres({"max_connections": "12", "superuser_reserved_connections": "3"}) as server:
        hba = server.data / "pg_hba.conf"
        hba.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + hba.read_text("utf-8"), "utf-8")
        server.execute("CREATE ROLE locked LOGIN PASSWORD 's3cr3t-word'")
        server.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="module")
def own_url(own: PostgresServer) -> str:
    found = own.url(own.fresh())
    postgres_schema.prepare(PostgresConnections(found))
    return found
