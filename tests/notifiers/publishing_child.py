"""A process of its own that publishes to a stream until it is killed: `python publishing_child.py URL TOPIC`."""

import asyncio
import sys

from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice
from overnight.stores.redis.notifier import RedisNotifier


async def main(url: str, topic: str) -> None:
    """Publish for ever, ten events at a time."""
    notifier = RedisNotifier(url)
    await notifier.start()
    seq = 1
    while True:
        events = tuple(Recorded(number, "x", b'{"n":%d}' % number) for number in range(seq, seq + 10))
        notifier.publish([Notice(topic=topic, events=events)])
        seq += 10
        await asyncio.sleep(0.001)


asyncio.run(main(*sys.argv[1:]))
