"""A writer that is cut off, or stopped, in the middle of its transaction keeps the others from writing for seconds."""

from __future__ import annotations

import time
from contextlib import suppress

import psycopg
import pytest

from overnight.clock import SystemClock
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.postgres import MOST_MS, PostgresGround, PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.testing.services.postgres import PostgresServer

pytestmark = pytest.mark.anyio


async def test_a_session_that_stands_still_within_a_pipeline_is_ended(
    postgres_server: PostgresServer,
) -> None:
    """The server counts it as neither idle nor at work, so the usual limits do not apply."""
    url = postgres_server.url(postgres_server.fresh())
    store = PostgresStore(url, SystemClock(), InprocNotifier())
    await store.start()
    connections = PostgresConnections(url)
    link = connections.open(writing=True)
    assert isinstance(link, PostgresLink)
    if link.raw.info.server_version < 170_000:
        pytest.skip(
            "this Postgres cannot bound a transaction; it ends such a session when the connection is lost"
        )
    PostgresGround(connections, SystemClock(), SystemClock()).begin(link)
    with suppress(psycopg.OperationalError), link.raw.pipeline():  # ends by finding its connection closed
        link.raw.execute("UPDATE counters SET value = value + 0")
        link.raw.pgconn.send_flush_request()
        link.raw.pgconn.flush()  # and no sync: the process stands still here
        before = time.monotonic()
        await store.write(lambda tx: tx.installation.put("a", "b"))
        took = time.monotonic() - before
    assert took < MOST_MS / 1000 + 30
    await store.close()
