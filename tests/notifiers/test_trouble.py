"""A Valkey that refuses, stalls, loses and lies: counted, told once, survived."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
from structlog.testing import capture_logs

from overnight.domain.event import Recorded
from overnight.ports.notifier import PRESENCE, QUEUE, Notice, stream_topic
from overnight.server.metrics import Meters
from overnight.stores.redis import resp, watching
from overnight.stores.redis.link import Link, Reply
from overnight.stores.redis.notifier import RedisNotifier
from overnight.stores.relay import line
from overnight.testing.conformance.notices import heard
from overnight.testing.conformance.relays import Log, Reader
from overnight.testing.services import valkey as services
from overnight.testing.services.valkey import Valkey
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
Pair = tuple[RedisNotifier, RedisNotifier]


@asynccontextmanager
async def started(url: str, **options: object) -> AsyncIterator[RedisNotifier]:
    notifier = RedisNotifier(url, **options)  # type: ignore[arg-type]
    await notifier.start()
    try:
        yield notifier
    finally:
        await notifier.close()


async def test_with_no_memory_left_wake_ups_still_go(pair: Pair, valkey: Valkey) -> None:
    log = Log()
    reader = Reader(pair[1], log)
    await reader.is_carried_to(pair[0])
    valkey.ask("CONFIG", "SET", "maxmemory", "1")
    with capture_logs() as logs:
        for _ in range(20):
            log.append(pair[0])
            await reader.reaches(len(log.events))
    assert pair[0].trouble is not None
    assert "maxmemory" in pair[0].trouble
    assert [entry["event"] for entry in logs] == ["notifier.disconnected"], "told once"
    assert pair[0].figures.counts["failed"] >= 20
    valkey.ask("CONFIG", "SET", "maxmemory", "0")
    log.append(pair[0])
    await eventually(lambda: pair[0].trouble is None)
    await reader.reaches(len(log.events))
    looks = reader.looks
    log.append(pair[0])
    await reader.reaches(len(log.events))
    assert reader.looks == looks, "carried again"
    await reader.close()


async def test_that_writes_are_taken_again_is_found_out_by_who_has_nothing_to_say(
    pair: Pair, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.stores.redis.sending.IDLE_S", 0.05)
    follows = pair[1]
    valkey.ask("CONFIG", "SET", "maxmemory", "1")
    listener = follows.subscribe(stream_topic("run_1"))
    await eventually(lambda: "maxmemory" in str(follows.trouble))
    valkey.ask("CONFIG", "SET", "maxmemory", "0")
    await eventually(lambda: follows.trouble is None and follows.figures.connected)
    assert follows.figures.counts["reconnected"] == 0, "no connection was lost"
    listener.close()


async def test_a_server_that_takes_no_writes(pair: Pair, valkey: Valkey) -> None:
    log = Log()
    reader = Reader(pair[1], log)
    await reader.is_carried_to(pair[0])
    valkey.ask("REPLICAOF", "127.0.0.1", "1")
    for _ in range(3):
        log.append(pair[0])
        await reader.reaches(len(log.events))
    assert pair[0].trouble is not None
    valkey.ask("REPLICAOF", "NO", "ONE")

    async def well() -> bool:
        log.append(pair[0])
        await reader.reaches(len(log.events))
        return pair[0].trouble is None

    await eventually(well, what="writes to be taken again")
    await reader.close()


async def test_a_server_that_stops_answering_is_given_up(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BLOCK_MS", 50)
    monkeypatch.setattr("overnight.stores.redis.listening.QUIET_S", 0.05)
    monkeypatch.setattr("overnight.stores.redis.sending.IDLE_S", 0.05)
    async with started(valkey.url, answer_s=0.2) as here, started(valkey.url, answer_s=0.2) as there:
        log = Log()
        reader = Reader(there, log)
        await reader.is_carried_to(here)
        valkey.freeze()
        await eventually(lambda: not here.figures.connected and not there.figures.connected)
        log.append(here, 30)
        valkey.thaw()
        await reader.reaches(len(log.events))
        await eventually(lambda: here.trouble is None and there.trouble is None)
        assert there.figures.counts["reconnected"] >= 1
        await reader.close()


async def test_publishing_to_a_stalled_server_is_bounded_and_quick(pair: Pair, valkey: Valkey) -> None:
    log = Log()
    reader, own = Reader(pair[1], log), pair[0].subscribe(log.topic)
    await reader.is_carried_to(pair[0])
    valkey.freeze()
    for _ in range(20_000):
        log.append(pair[0])
    waiting = pair[0]._outbox
    assert len(waiting._waiting) <= 8192
    assert pair[0].figures.counts["dropped"] > 10_000
    valkey.thaw()
    await reader.reaches(len(log.events))
    own.close()
    await reader.close()


async def test_a_wrong_password_is_said_once_and_mended_without_a_restart(tmp_path: object) -> None:
    with services.valkey(password="right-8361") as valkey, capture_logs() as logs:
        async with started(valkey.url_with("wrong-4417")) as wrong, started(valkey.url_with(None)) as none:
            for notifier in (wrong, none):
                listener = notifier.subscribe("a")
                notifier.publish([Notice(topic="a")])
                assert await heard(listener, 1), "what is local works"
                assert not notifier.figures.connected
                assert notifier.figures.counts["dropped"] == 1
            assert "WRONGPASS" in str(wrong.trouble) or "invalid" in str(wrong.trouble)
            assert "uthentication" in str(none.trouble)
            await asyncio.sleep(0)
            warnings = [entry for entry in logs if entry["event"] == "notifier.disconnected"]
            assert len(warnings) == 2
            valkey.ask("CONFIG", "SET", "requirepass", "wrong-4417")
            await eventually(lambda: wrong.trouble is None, what="the right password")
            valkey.password = "wrong-4417"
        assert "4417" not in str(logs)
        async with (
            started(valkey.url.replace("redis://:", "redis://default:") + "/3") as here,
            started(valkey.socket_url + "?db=3") as there,
        ):
            log = Log()
            reader = Reader(there, log)
            await reader.is_carried_to(here)
            assert reader.carried > 0, "users, databases and sockets"
            await reader.close()


async def test_a_server_that_is_not_there_holds_up_nothing(valkey: Valkey) -> None:
    valkey.kill()
    async with started(valkey.url) as here:
        log = Log()
        reader = Reader(here, log)
        log.append(here, 10)
        await reader.reaches(10)
        valkey.start()
        await eventually(lambda: here.trouble is None)
        await reader.close()


@pytest.mark.parametrize("url", ["http://x:secret@h", "secret", ""])
def test_an_address_of_another_kind_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="redis://") as refused:
        RedisNotifier(url)
    assert "secret" not in str(refused.value)


async def test_whatever_lies_in_a_stream_is_put_in_order(pair: Pair, valkey: Valkey) -> None:
    """Other writers, in any order, twice, with holes, and rubbish between."""
    dice, log = random.Random(3), Log()
    reader = Reader(pair[1], log)
    await reader.is_carried_to(pair[0])
    key, known = resp.Keys("overnight").events(log.topic).decode(), len(log.events)
    log.events += [Recorded(seq, "x", b'{"n":%d}' % seq) for seq in range(known + 1, known + 301)]
    rubbish = [{"a": "b"}, {"by": "x", "seq": "y", "type": "z", "body": ""}]
    lies = ["", "{", "[]", '{"by":1}', '{"by":"x","told":7}', "\x00"]
    client = redis.Redis.from_url(valkey.url)
    sent = [event for event in log.events[known:] if dice.random() < 0.9] * 2
    for start in range(0, len(sent), 20):
        part = sent[start : start + 20]
        dice.shuffle(part)
        for event in part:
            fields = {"by": "somebody", "seq": str(event.seq), "type": "x", "body": event.body}
            client.xadd(key, fields)  # type: ignore[arg-type]
        client.xadd(key, dice.choice(rubbish))  # type: ignore[arg-type]
        client.publish("overnight:wake", dice.choice(lies))
    client.close()
    log.events.append(Recorded(known + 301, "x", b"{}"))
    pair[0].publish([Notice(topic=log.topic, events=(log.events[-1],))])
    await reader.reaches(known + 301)
    assert reader.seqs == sorted(set(reader.seqs))
    assert pair[1].figures.counts["missed"] > 0
    assert pair[1].trouble is None
    await reader.close()


async def test_a_key_of_another_kind_costs_its_own_stream_alone(pair: Pair, valkey: Valkey) -> None:
    log, spoilt = Log(), Log(stream_topic("run_spoilt"))
    valkey.ask("SET", resp.Keys("overnight").events(spoilt.topic).decode(), "mine")
    readers = [Reader(pair[1], spoilt), Reader(pair[1], log)]
    with capture_logs() as logs:
        for number in range(1, 6):
            spoilt.append(pair[0])
            log.append(pair[0])
            await readers[0].reaches(number)
            await readers[1].reaches(number)
    assert logs == [], "the server is well"
    assert pair[0].figures.counts["failed"] == 5
    for reader in readers:
        await reader.close()


async def test_streams_are_bounded_in_length_and_time(valkey: Valkey) -> None:
    async with started(valkey.url, stream_length=50, ttl_s=100, prefix="mine") as here:
        log, session = Log(), Log(stream_topic("ses_1"))
        log.append(here, 3000)
        session.append(here)
        key = f"mine:run:{log.topic.removeprefix('stream:')}:events"
        await eventually(lambda: valkey.ask("XLEN", "mine:session:ses_1:events"))
        assert valkey.ask("XLEN", key) <= 150
        assert 90 <= valkey.ask("TTL", key) <= 100
        newest = valkey.ask("XREVRANGE", key, "+", "-", "COUNT", "1")[0][1]
        assert newest["seq"] == "3000"
        assert newest["type"] == "message.completed"
        assert newest["body"].encode() == log.events[-1].body
        here.publish([Notice(topic=log.topic, events=(Recorded(3001, "run.failed", b"{}"),))])
        await eventually(lambda: valkey.ask("TTL", key) <= 60, what="a short time to live after the end")


async def test_what_was_trimmed_away_is_looked_up(valkey: Valkey) -> None:
    async with started(valkey.url, stream_length=10) as here, started(valkey.url) as there:
        log = Log()
        reader = Reader(there, log)
        await reader.is_carried_to(here)
        log.append(here, 5000)
        await reader.reaches(len(log.events))
        await reader.close()


async def test_closing_sends_what_waits_and_leaves_no_connection(valkey: Valkey) -> None:
    async with started(valkey.url) as there:
        log = Log()
        reader = Reader(there, log)
        async with started(valkey.url) as here:
            await reader.is_carried_to(here)
            log.append(here, 100)
        await reader.reaches(len(log.events))
        await here.close()
        here.publish([Notice(topic=QUEUE)])
        await reader.close()
    await eventually(lambda: len(valkey.ask("CLIENT", "LIST").splitlines()) == 1, what="our own client alone")
    assert not [key for key in valkey.ask("KEYS", "*") if ":bell:" in key]


async def test_meters_tell(valkey: Valkey) -> None:
    meters = Meters()
    async with started(valkey.url, meter=meters) as here:
        here.publish([Notice(topic=QUEUE)])
        await eventually(lambda: here.figures.counts["published"] == 1)
        page = meters.page([])
        assert b'overnight_notices_total{what="published"} 1.0' in page
        assert b'overnight_notifier_connected{carrier="valkey"} 1.0' in page
    assert b'overnight_notifier_connected{carrier="valkey"} 0.0' in meters.page([])


async def test_a_user_with_few_rights_is_enough(valkey: Valkey) -> None:
    rights = "+xadd +xread +xrevrange +expire +del +publish +subscribe +unsubscribe +ping +select"
    valkey.ask(
        "ACL",
        "SETUSER",
        "night",
        "on",
        ">few",
        "resetchannels",
        "~overnight:*",
        "&overnight:*",
        "-@all",
        *rights.split(),
    )
    url = valkey.url.replace("redis://", "redis://night:few@") + "/0"
    async with started(url) as here, started(url) as there:
        log = Log()
        reader, wakes = Reader(there, log), there.subscribe(QUEUE)
        await reader.is_carried_to(here)
        log.append(here, 10)
        here.publish([Notice(topic=QUEUE)])
        await reader.reaches(len(log.events))
        assert await heard(wakes, 1) == [Notice(topic=QUEUE)]
        assert here.trouble is None
        assert there.trouble is None
        await reader.close()
    valkey.ask("ACL", "DELUSER", "night")
    assert not [key for key in valkey.ask("KEYS", "*") if ":bell:" in key]


@pytest.mark.parametrize("without", ["-xread", "-xrevrange", "-xadd", "resetkeys", "resetchannels"])
async def test_rights_that_are_missing_are_said_once(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    monkeypatch.setattr(line, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(line, "MOST_PAUSE_S", 0.002)
    monkeypatch.setattr("overnight.stores.redis.sending.IDLE_S", 0.001)
    asked, ask = 0, Link.ask

    async def counted(link: Link, packed: bytes, replies: int, *, patience_s: float = 0.0) -> list[Reply]:
        nonlocal asked
        asked += 1
        return await ask(link, packed, replies, patience_s=patience_s)

    monkeypatch.setattr(Link, "ask", counted)
    valkey.ask("ACL", "SETUSER", "less", "on", ">0", "allkeys", "allchannels", "+@all", without)
    with capture_logs() as logs:
        async with started(valkey.url.replace("redis://", "redis://less:0@")) as here:
            await eventually(lambda: here.trouble is not None)
            enough = asked + 50
            await eventually(lambda: asked > enough, what="more attempts")
            assert "NOPERM" in str(here.trouble)
            assert not here.figures.connected
    valkey.ask("ACL", "DELUSER", "less")
    assert [entry["event"] for entry in logs if entry["log_level"] != "info"] == ["notifier.disconnected"]


async def test_what_cannot_even_be_said_takes_nothing_else_along(pair: Pair) -> None:
    """An error of ours in the middle of a batch: all of the batch is owed."""
    listener = pair[1].subscribe(QUEUE)
    with capture_logs() as logs:
        pair[0].publish([Notice(topic=PRESENCE, delta=b"\xff"), Notice(topic=QUEUE)])
        assert (await heard(listener, 1))[0].topic == QUEUE
    assert [entry["event"] for entry in logs].count("notifier.line_failed") == 1
    assert pair[0].figures.counts["failed"] == 2
    listener.close()


async def test_a_user_who_may_not_publish_is_said_and_does_not_spin(valkey: Valkey) -> None:
    valkey.ask("ACL", "SETUSER", "mute", "on", "nopass", "allkeys", "allchannels", "+@all", "-publish")
    async with started(valkey.url.replace("redis://", "redis://mute:x@")) as here:
        here.publish([Notice(topic=QUEUE)])
        await eventually(lambda: here.figures.counts["failed"] == 1)
        assert "NOPERM" in str(here.trouble)
    valkey.ask("ACL", "DELUSER", "mute")
