"""Two notifiers on one carrier, as two processes would have them."""

import warnings
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from overnight.stores.redis.notifier import RedisNotifier
from overnight.testing.services.postgres import PostgresServer, ServiceUnavailable, programs
from overnight.testing.services.valkey import Valkey

Start = Callable[..., RedisNotifier]


@pytest.fixture(scope="session")
def announcing() -> Iterator[PostgresServer]:
    """One Postgres for the tests of announcements; it keeps nothing, so it need not be durable."""
    try:
        with warnings.catch_warnings():  # the package looks for a runtime folder that nobody needs
            warnings.simplefilter("ignore")
            programs()
        server = PostgresServer({"fsync": "off"})
    except ServiceUnavailable as error:
        pytest.skip(f"no Postgres server: {error}")
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def pair(valkey: Valkey, anyio_backend: str) -> AsyncIterator[tuple[RedisNotifier, RedisNotifier]]:
    """Two started notifiers of an empty Valkey."""
    here, there = RedisNotifier(valkey.url), RedisNotifier(valkey.url)
    await here.start()
    await there.start()
    yield here, there
    await here.close()
    await there.close()
