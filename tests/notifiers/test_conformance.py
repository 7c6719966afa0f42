"""Every notifier passes the notifier's suite, and those that reach other processes the relays' suite too."""

from collections.abc import AsyncIterator

import pytest

from overnight.ports.notifier import Notifier
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.redis.notifier import RedisNotifier
from overnight.stores.sql.announcer import PostgresNotifier
from overnight.testing.conformance.notices import NotifierSuite
from overnight.testing.conformance.relays import Relays, RelaySuite
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.services.valkey import Valkey


class TestInprocNotifier(NotifierSuite):
    @pytest.fixture
    def notifier(self) -> Notifier:
        return InprocNotifier()


class TestRedisNotifier(NotifierSuite, RelaySuite):
    @pytest.fixture
    def notifier(self, pair: tuple[RedisNotifier, RedisNotifier]) -> Notifier:
        return pair[0]

    @pytest.fixture
    def relays(self, valkey: Valkey, pair: tuple[RedisNotifier, RedisNotifier]) -> Relays:
        async def traces() -> object:
            return sorted(valkey.ask("PUBSUB", "CHANNELS")), pair[1].watched

        return Relays(here=pair[0], there=pair[1], carries_events=True, carries_deltas=True, traces=traces)


class TestPostgresNotifier(NotifierSuite, RelaySuite):
    @pytest.fixture
    async def notifiers(
        self, announcing: PostgresServer, anyio_backend: str
    ) -> AsyncIterator[tuple[PostgresNotifier, PostgresNotifier]]:
        here, there = PostgresNotifier(announcing.url()), PostgresNotifier(announcing.url(tcp=True))
        await here.start()
        await there.start()
        yield here, there
        await here.close()
        await there.close()

    @pytest.fixture
    def notifier(self, notifiers: tuple[PostgresNotifier, PostgresNotifier]) -> Notifier:
        return notifiers[0]

    @pytest.fixture
    def relays(
        self, announcing: PostgresServer, notifiers: tuple[PostgresNotifier, PostgresNotifier]
    ) -> Relays:
        async def traces() -> object:
            return announcing.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'overnight notices'"
            )

        return Relays(
            here=notifiers[0], there=notifiers[1], carries_events=False, carries_deltas=False, traces=traces
        )
