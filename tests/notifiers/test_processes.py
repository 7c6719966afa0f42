"""A publisher in another process, killed in the middle."""

import asyncio
import sys
from pathlib import Path

import pytest

from overnight.ports.notifier import stream_topic
from overnight.stores.redis.notifier import RedisNotifier
from overnight.testing.conformance.notices import heard
from overnight.testing.services.valkey import Valkey

pytestmark = pytest.mark.anyio


async def test_what_a_killed_process_has_said_arrives_whole(
    valkey: Valkey, pair: tuple[RedisNotifier, RedisNotifier]
) -> None:
    topic = stream_topic("run_1")
    listener = pair[0].subscribe(topic)
    child = Path(__file__).with_name("publishing_child.py")
    process = await asyncio.create_subprocess_exec(sys.executable, str(child), valkey.url, topic)
    try:
        notices = await heard(listener, 30, within=60)
    finally:
        process.kill()
        await process.wait()
    while more := await listener.next(0.2):
        notices += more
    seqs = [event.seq for notice in notices for event in notice.events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    bells = list(valkey.ask("KEYS", "overnight:bell:*"))
    assert all(0 < valkey.ask("TTL", key) <= 60 for key in bells), "what it leaves behind goes by itself"
    listener.close()
    assert pair[0].watched == 0
