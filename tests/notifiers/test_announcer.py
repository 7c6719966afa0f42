"""Notices by Postgres: lost connections, restarts, long lists, and nothing that could hurt the database."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.stores.wire import Wire, wire

from overnight.domain.event import Recorded
from overnight.ids import new_run_id
from overnight.ports.notifier import PRESENCE, QUEUE, Notice, stream_topic
from overnight.stores.relay.outbox import Batch
from overnight.stores.sql import announcer
from overnight.stores.sql.announcer import PostgresNotifier, payloads
from overnight.stores.sql.postgres_notices import NoticeLine
from overnight.testing.conformance.notices import heard
from overnight.testing.conformance.relays import Log, Reader
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
Pair = tuple[PostgresNotifier, PostgresNotifier]


@pytest.fixture
async def pair(announcing: PostgresServer, anyio_backend: str) -> AsyncIterator[Pair]:
    here, there = PostgresNotifier(announcing.url(tcp=True)), PostgresNotifier(announcing.url())
    await here.start()
    await there.start()
    yield here, there
    await here.close()
    await there.close()


@pytest.fixture
async def following(pair: Pair) -> AsyncIterator[tuple[Log, Reader]]:
    log = Log()
    reader = Reader(pair[1], log)
    log.append(pair[0])
    await reader.reaches(1)
    yield log, reader
    await reader.close()


async def test_connections_that_are_ended_come_back(
    pair: Pair, following: tuple[Log, Reader], announcing: PostgresServer
) -> None:
    log, reader = following
    for _ in range(3):
        announcing.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'overnight notices'"
        )
        log.append(pair[0], 3)
        await reader.reaches(len(log.events))
    await eventually(lambda: pair[0].trouble is None and pair[1].trouble is None)
    assert sum(pair[0].figures.counts[what] for what in ("dropped", "failed")) > 0
    assert pair[1].figures.counts["reconnected"] > 0


async def test_a_restart_of_the_database_is_survived_and_told_once(
    pair: Pair, following: tuple[Log, Reader], announcing: PostgresServer
) -> None:
    log, reader = following
    with capture_logs() as logs:
        announcing.stop()
        try:
            await eventually(lambda: not pair[0].figures.connected and not pair[1].figures.connected)
            log.append(pair[0], 20)
            pair[0].publish([Notice(topic=QUEUE)])
        finally:
            announcing.start()
        await reader.reaches(21)
        await eventually(lambda: pair[0].trouble is None and pair[1].trouble is None)
    assert [entry["event"] for entry in logs].count("notifier.connected") == 2
    assert len({str(entry) for entry in logs}) == len(logs), "nothing is said twice in one outage"


async def test_nobody_holds_a_transaction_while_listening(
    pair: Pair, following: tuple[Log, Reader], announcing: PostgresServer
) -> None:
    states = "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name = 'overnight notices'"
    await eventually(lambda: announcing.execute(states) == [("idle",)], what="all of them to be idle")


async def test_presence_is_told_without_its_names(pair: Pair) -> None:
    listener = pair[1].subscribe(PRESENCE)
    pair[0].publish([Notice(topic=PRESENCE, delta=b'["ses_1"]')])
    assert await heard(listener, 1) == [Notice(topic=PRESENCE)]
    listener.close()


async def test_rubbish_on_the_channel_is_counted(
    pair: Pair, following: tuple[Log, Reader], announcing: PostgresServer
) -> None:
    for payload in ("", "{", "[]", '{"by": "x"}', '{"by": "x", "topics": 3}'):
        announcing.execute(f"SELECT pg_notify('overnight', '{payload}')")
    await eventually(lambda: pair[1].figures.counts["missed"] == 5)
    assert pair[1].trouble is None


def test_payloads_are_split_and_name_every_topic_with_its_newest_seq() -> None:
    topics = [stream_topic(new_run_id(number)) for number in range(2000)]
    notices = [
        Notice(topic=topic, events=(Recorded(seq, "x", b"private"),)) for seq, topic in enumerate(topics, 1)
    ]
    found = list(payloads("abcdefgh", Batch(notices=notices, owed={QUEUE}, owes_all=True)))
    assert max(map(len, found)) < 8000
    assert len(found) < 20
    joined = b"".join(found).decode()
    assert all(f'"{topic}":{seq}' in joined for seq, topic in enumerate(topics, 1))
    assert joined.count('"all":true') == 1
    assert f'"{QUEUE}":0' in joined
    assert "private" not in joined
    assert len(list(payloads("abcdefgh", Batch(notices=[], owes_all=True)))) == 1


@pytest.mark.parametrize("url", ["postgresql://u:secret@[bad/db", "host=x secret"])
def test_an_address_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be read") as refused:
        PostgresNotifier(url)
    assert "secret" not in str(refused.value)


async def test_no_password_is_logged(announcing: PostgresServer) -> None:
    url = f"postgresql://nobody:pw-90210@127.0.0.1:{announcing.port}/nowhere"
    with capture_logs() as logs:
        notifier = PostgresNotifier(url)
        await notifier.start()
        assert notifier.trouble is not None
        await notifier.close()
    assert "pw-90210" not in str(logs) + notifier.trouble


@pytest.fixture
def way(announcing: PostgresServer) -> Iterator[Wire]:
    with wire(announcing.port) as found:
        yield found


async def test_a_database_that_falls_silent_is_given_up_and_come_back_to(
    announcing: PostgresServer, way: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word and no end of the connection: as behind a router that has forgotten it."""
    monkeypatch.setattr(announcer, "QUIET_S", 0.2)
    monkeypatch.setattr(announcer, "ANSWER_S", 0.3)
    here = PostgresNotifier(f"postgresql://overnight@127.0.0.1:{way.port}/postgres")
    there = PostgresNotifier(announcing.url())
    await here.start()
    await there.start()
    await eventually(lambda: here.trouble is None and there.trouble is None)
    subscription = here.subscribe(QUEUE)
    way.stall()
    await eventually(lambda: here.trouble)
    assert here.trouble is not None
    assert "not answer" in here.trouble
    way.mend()
    await eventually(lambda: here.trouble is None)
    there.publish([Notice(topic=QUEUE)])
    assert [notice.topic for notice in await heard(subscription, 1)] == [QUEUE]
    await here.close()
    await there.close()


async def test_closing_asks_nothing_more_of_a_silent_database(
    way: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "QUIET_S", 0.2)
    monkeypatch.setattr(announcer, "ANSWER_S", 600.0)
    asking: set[NoticeLine] = set()
    ask = NoticeLine.ask

    async def noted(line: NoticeLine, *said: Any, answer_s: float) -> None:
        asking.add(line)
        await ask(line, *said, answer_s=answer_s)
        asking.remove(line)

    monkeypatch.setattr(NoticeLine, "ask", noted)
    here = PostgresNotifier(f"postgresql://overnight@127.0.0.1:{way.port}/postgres")
    await here.start()
    await eventually(lambda: here.trouble is None)
    way.stall()
    await eventually(lambda: len(asking) == 2)
    before = way.taken
    await here.close()
    assert way.taken == before
