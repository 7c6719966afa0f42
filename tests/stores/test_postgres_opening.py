"""What a store makes of a server: addresses, rights, settings, and restarts under load."""

import asyncio
import signal
import traceback
from contextlib import suppress
from functools import partial

import pytest
from tests.stores.acts import get, put, refused

from overnight.clock import SystemClock
from overnight.errors import StartRefused, UnsafeDatabase
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import postgres, writer
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.statements import Link
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def patient_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is taken in, however slow this machine is: so it is known what is in one transaction."""
    monkeypatch.setattr(writer, "BATCH_S", 5.0)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/postgres",
        "postgresql://locked@127.0.0.1:{port}/postgres?password=wr0ng-pass",
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/nowhere",
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/postgres?sslmode=verify-full",
        "postgresql://locked:wr0ng-pass@127.0.0.1:1/postgres",
        "postgresql://locked:wr0ng-pass@nowhere.invalid:{port}/postgres",
        "postgresql://locked:wr0ng-pass/more@127.0.0.1:{port}/postgres",
        "postgresql://locked:more@wr0ng-pass@127.0.0.1:{port}/postgres",
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/postgres?unknown=1",
        "host=127.0.0.1 port={port} user=locked password='wr0ng-pass' dbname=postgres",
    ],
)
async def test_an_address_that_will_not_do_is_refused_without_its_password(
    own: PostgresServer, address: str
) -> None:
    error = await refused(address.format(port=own.port))
    told = "".join(traceback.format_exception(error)) + repr(error) + str(error.extra)
    assert "wr0ng-pass" not in told
    assert "127.0.0.1" in told or "address" in told or "nowhere" in told


async def test_the_right_password_opens(own: PostgresServer) -> None:
    own.execute("CREATE DATABASE theirs OWNER locked")
    store = PostgresStore(
        f"postgresql://locked:s3cr3t-word@127.0.0.1:{own.port}/theirs", CLOCK, InprocNotifier()
    )
    await store.start()
    assert await store.write(partial(put, "a")) == 1
    await store.close()


async def test_the_first_of_several_servers_that_takes_writes(own: PostgresServer) -> None:
    name = own.fresh()
    store = PostgresStore(
        f"postgresql://overnight@127.0.0.1:1,127.0.0.1:{own.port}/{name}", CLOCK, InprocNotifier()
    )
    await store.start()
    assert await store.write(partial(put, "a")) == 1
    await store.close()


async def test_all_connections_taken(own: PostgresServer, own_url: str) -> None:
    own.execute("CREATE ROLE plain LOGIN; GRANT ALL ON DATABASE postgres TO plain")
    plain = PostgresConnections(own.url().replace("overnight@", "plain@", 1))

    def opened() -> Link | None:
        with suppress(Exception):  # sessions of the test before may not be gone yet
            return plain.open(writing=False)
        return None

    taken = [await eventually(opened, what="a free connection") for _ in range(9)]
    error = await refused(own.url().replace("overnight@", "plain@", 1))
    assert "connection" in str(error)
    for link in taken:
        assert link is not None
        link.close()


async def test_a_database_that_only_reads_is_not_written_to(own: PostgresServer) -> None:
    name = own.fresh()
    own.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "read-only" in str(await refused(own.url(name)))


async def test_another_encoding_is_refused(own: PostgresServer) -> None:
    name = own.fresh("ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
    error = await refused(own.url(name))
    assert isinstance(error, UnsafeDatabase)
    assert "LATIN1" in str(error)


async def test_a_store_that_loses_what_it_commits_is_told_otherwise(own: PostgresServer) -> None:
    name = own.fresh()
    own.execute(
        f"ALTER DATABASE {name} SET synchronous_commit = off; ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'"
    )
    store = PostgresStore(own.url(name), CLOCK, InprocNotifier())
    await store.start()
    rows = await store.write(lambda tx: tx._context.link.rows("SELECT current_setting('synchronous_commit')"))  # type: ignore[attr-defined]
    assert rows == [("on",)]
    await store.close()


async def test_a_store_that_starts_while_the_server_recovers_waits(
    own: PostgresServer, own_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE_S", 60.0)  # however slow this machine is
    own.execute("CHECKPOINT")
    own.execute("CREATE TABLE IF NOT EXISTS bulk (t text)", own_url.split("/")[3].split("?", maxsplit=1)[0])
    own.execute(
        "INSERT INTO bulk SELECT repeat('x', 500) FROM generate_series(1, 100000)",
        own_url.split("/")[3].split("?", maxsplit=1)[0],
    )
    restarting = asyncio.ensure_future(asyncio.to_thread(own.restart, signal.SIGKILL))
    store, seen = PostgresStore(own_url, CLOCK, InprocNotifier()), list[str]()

    async def started() -> bool:
        """Connections are refused until the server listens; from then on it is waited for."""
        try:
            await store.start()
        except StartRefused as error:
            seen.append(str(error))
            return False
        return True

    await eventually(started, within=60)
    assert await store.write(partial(put, "x")) >= 1
    assert not any("starting up" in said for said in seen)
    await restarting
    await store.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_a_restart_under_load(
    own: PostgresServer, own_url: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged is there once; nobody hears of an error, as the server is back soon."""
    monkeypatch.setattr(postgres, "PATIENCE_S", 60.0)  # however slow this machine is
    stores = [PostgresStore(own_url, CLOCK, InprocNotifier()) for _ in range(2)]
    for each in stores:
        await each.start()
    for n in range(8):
        await stores[0].write(lambda tx, n=n: tx.installation.put(f"{how.name}{n}", "0"))  # type: ignore[misc]
    acknowledged, over = dict.fromkeys(range(8), 0), asyncio.Event()

    async def client(n: int) -> None:
        while not over.is_set():
            said = await stores[n % 2].write(partial(put, f"{how.name}{n}"))
            assert said == acknowledged[n] + 1, "nothing is lost, nothing is done twice"
            acknowledged[n] = said

    clients = [asyncio.ensure_future(client(n)) for n in range(8)]
    await eventually(lambda: min(acknowledged.values()) >= 3)
    await asyncio.to_thread(own.restart, how)
    then = dict(acknowledged)
    await eventually(
        lambda: any(c.done() for c in clients) or all(acknowledged[n] > then[n] + 3 for n in then)
    )
    over.set()
    await asyncio.gather(*clients)
    assert {n: await get(stores[0], f"{how.name}{n}") for n in range(8)} == {
        n: str(count) for n, count in acknowledged.items()
    }
    for each in stores:
        await each.close()
