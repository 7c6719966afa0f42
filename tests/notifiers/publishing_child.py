"""A process of its own that publishes to a stream until it is killed: `python publishing_child.py URL TOPIC`."""

import asyncio
import sys
from functools import partial

from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice
from overnight.stores.redis.notifier import RedisNotifier
from overnight.testing.signals import eventually


async def main(url: str, topic: str) -> None:
    """Publish for ever, ten events at a time."""
    notifier = RedisNotifier(url)
    await notifier.start()

    def taken(count: int) -> bool:
        return notifier.figures.counts["published"] >= count

    told = 0
    while True:
        first = 10 * told + 1
        events = tuple(Recorded(seq, "x", b'{"n":%d}' % seq) for seq in range(first, first + 10))
        notifier.publish([Notice(topic=topic, events=events)])
        told += 1
        await eventually(partial(taken, told))


asyncio.run(main(*sys.argv[1:]))
