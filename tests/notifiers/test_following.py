"""Readers at a server that hears of events by Valkey alone: the same history, whatever becomes of Valkey."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.notifiers.follow import CLOCK, History, Server, append

from overnight.domain.run import Run
from overnight.ports.notifier import QUEUE, Notice, stream_topic
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.redis.link import Address, Link
from overnight.stores.redis.notifier import RedisNotifier
from overnight.stores.relay import line
from overnight.stores.relay.outbox import MOST_OWED
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage
from overnight.testing.services.valkey import Valkey
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
Pair = tuple[RedisNotifier, RedisNotifier]
A_MINUTE = 2 * 3 * 40
"""Attempts of two notifiers, by three lines each, at pauses of one and a half seconds."""


@pytest.fixture
async def store(tmp_path: Path, pair: Pair) -> AsyncIterator[SqliteStore]:
    """What the first of the pair publishes comes from here."""
    store = SqliteStore(tmp_path / "overnight.db", CLOCK, pair[0], synchronous="NORMAL")
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def run(store: SqliteStore) -> Run:
    return await Stage(uow=store, notifier=InprocNotifier(), clock=ManualClock()).run()


async def at(seq: int, *readers: History) -> None:
    """All of them have come so far."""
    await eventually(lambda: all(reader.last == seq for reader in readers), what=f"event {seq}")


async def test_reading_live_touches_no_database(store: SqliteStore, run: Run, pair: Pair) -> None:
    server = Server(store, pair[1])
    readers = [server.read(run) for _ in range(5)]
    await append(store, run, 10)
    await eventually(lambda: all(reader.last == 11 for reader in readers), what="the beginning")
    last = await append(store, run)
    await eventually(lambda: all(reader.last == last for reader in readers), what="the first live event")
    reads = server.uow.reads
    for _ in range(100):
        last = await append(store, run, 3)
        await at(last, *readers)
    assert server.uow.reads == reads, "three hundred events to five readers without one read"
    stored = await store.read(lambda tx: tx.events.after(run.pk, 0, 1000))
    assert all(tuple(reader.events) == stored for reader in readers), "the stored bytes"
    server.follower.close()


async def test_the_same_history_whatever_becomes_of_valkey(
    store: SqliteStore, run: Run, pair: Pair, valkey: Valkey
) -> None:
    dice = random.Random(11)
    servers = [Server(store, notifier, poll_s=0.2) for notifier in pair]
    readers = [server.read(run) for server in servers]
    nemeses = {
        "kill": valkey.kill,
        "start": valkey.start,
        "restart": valkey.restart,
        "flush": lambda: valkey.flush() if valkey.pid else None,
        "drop": lambda: valkey.ask("CLIENT", "KILL", "TYPE", "normal") if valkey.pid else None,
        "deafen": lambda: valkey.ask("CLIENT", "KILL", "TYPE", "pubsub") if valkey.pid else None,
        "pause": lambda: valkey.ask("CLIENT", "PAUSE", "50") if valkey.pid else None,
        "freeze": valkey.freeze,
        "thaw": valkey.thaw,
    }
    last = 1
    for _ in range(60):
        name = dice.choice(list(nemeses))
        valkey.thaw()
        nemeses[name]()
        for _ in range(5):
            last = await append(store, run, dice.randrange(1, 20))
        if dice.random() < 0.3:
            late = servers[1].read(run, dice.randrange(last))
            readers.append(late)
    valkey.thaw()
    valkey.start()
    last = await append(store, run, type="run.completed")
    for reader in readers:
        await asyncio.wait_for(reader.task, 60)
        assert reader.seqs == list(range(reader.seqs[0], last + 1))
    assert [reader.seqs[0] for reader in readers[:2]] == [1, 1]


async def test_with_valkey_away_everything_arrives_within_the_poll(
    store: SqliteStore, run: Run, pair: Pair, valkey: Valkey
) -> None:
    server = Server(store, pair[1], poll_s=0.1)
    reader = server.read(run)
    await at(1, reader)
    valkey.kill()
    await eventually(lambda: not pair[0].figures.connected and not pair[1].figures.connected)
    for _ in range(5):
        last = await append(store, run)
        reads = server.uow.reads
        await at(last, reader)
        assert server.uow.reads - reads <= 3, "the first look behind it, and what came before this was seen"
    valkey.start()
    await eventually(lambda: pair[0].trouble is None and pair[1].trouble is None, what="both to be back")
    reader.reader.close()


async def test_a_minute_without_valkey_costs_nobody_an_event(
    store: SqliteStore, run: Run, pair: Pair, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many attempts as a minute has, at pauses of a hundredth, and more to tell than is remembered meanwhile."""
    attempts, opened = 0, Link.open

    async def counted(address: Address) -> Link:
        nonlocal attempts
        attempts += 1
        return await opened(address)

    monkeypatch.setattr(Link, "open", counted)
    monkeypatch.setattr(line, "FIRST_PAUSE_S", line.FIRST_PAUSE_S / 100)
    monkeypatch.setattr(line, "MOST_PAUSE_S", line.MOST_PAUSE_S / 100)
    polls, waits = Server(store, pair[1], poll_s=0.1), Server(store, pair[1], poll_s=3600)
    polling, waiting = polls.read(run), waits.read(run)
    await at(1, polling, waiting)
    queue = pair[1].subscribe(QUEUE)
    valkey.kill()
    await eventually(lambda: not pair[0].figures.connected and not pair[1].figures.connected)
    outbox, last, topics = pair[0]._outbox, 1, 0
    while attempts < A_MINUTE or topics <= MOST_OWED:
        last = await append(store, run, 20)
        pair[0].publish([Notice(topic=f"requests:{topics + more}") for more in range(500)])
        topics += 500
        await at(last, polling)
        assert not outbox._waiting, "what cannot be sent does not pile up"
        assert len(outbox._owed) <= MOST_OWED, "nor do the topics"
    assert pair[0].figures.counts["dropped"] >= topics
    valkey.start()
    await at(last, waiting)
    assert waiting.seqs == polling.seqs == list(range(1, last + 1))
    await asyncio.wait_for(queue.next(3600), 60)
    await eventually(lambda: pair[0].trouble is None and pair[1].trouble is None, what="both to be back")
    last = await append(store, run)
    await at(last, waiting)
    for history in (polling, waiting):
        history.reader.close()
    queue.close()


async def test_what_was_missed_meanwhile_arrives_as_soon_as_valkey_is_back(
    store: SqliteStore, run: Run, pair: Pair, valkey: Valkey
) -> None:
    reader = Server(store, pair[1], poll_s=60).read(run)
    await eventually(lambda: reader.last == 1, what="the beginning")
    valkey.kill()
    await eventually(lambda: not pair[0].figures.connected and not pair[1].figures.connected)
    last = await append(store, run, 5)
    counts = pair[0].figures.counts
    await eventually(lambda: counts["dropped"] + counts["failed"] > 0, what="the loss to be counted")
    valkey.start()
    await eventually(lambda: reader.last == last, what="what was missed, without any poll")
    reader.reader.close()


async def test_a_thousand_words_without_events_are_one_look(store: SqliteStore, run: Run) -> None:
    hub = InprocNotifier()
    server = Server(store, hub)
    reader = server.read(run)
    await at(1, reader)
    for _ in range(10):
        last = await append(store, run, 10)
        reads = server.uow.reads
        hub.publish([Notice(topic=stream_topic(run.id))] * 100)
        await at(last, reader)
        assert server.uow.reads - reads <= 2
    reader.reader.close()


async def test_deltas_do_not_hide_that_events_are_lost(store: SqliteStore, run: Run) -> None:
    deaf = InprocNotifier()
    reader = Server(store, deaf, poll_s=0.05).read(run)
    await eventually(lambda: reader.last == 1, what="the beginning")

    async def chatter() -> None:
        while True:
            deaf.publish([Notice(topic=stream_topic(run.id), delta=b"{}")])
            await asyncio.sleep(0)

    chattering = asyncio.create_task(chatter())
    last = await append(store, run, 5)
    await eventually(lambda: reader.last == last, what="events of which nobody told")
    chattering.cancel()
    reader.reader.close()
