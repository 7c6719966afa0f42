"""Notices between the parts of one process, on one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from overnight.ports.notifier import Notice

MOST_NOTICES: Final = 1024
MOST_BYTES: Final = 4 * 1024 * 1024
"""What a listener may leave lying; the bytes are shared with other listeners, but only as long as those keep up."""


class Audience(Protocol):
    """Told which topics anybody listens to: for notifiers that bring notices from other processes."""

    def came(self, topic: str) -> None:
        """The first listener of a topic has come."""
        ...

    def went(self, topic: str) -> None:
        """The last one has gone."""
        ...


class InprocNotifier:
    """See `ports.notifier.Notifier`. Belongs to the loop on which it is used.

    Notifiers that reach other processes deliver through one of these; `audience` hears of the topics that matter.
    """

    def __init__(self, audience: Audience | None = None) -> None:
        self._listeners: dict[str, set[InprocSubscription]] = {}
        self._audience = audience

    def publish(self, notices: Sequence[Notice]) -> None:
        """See the port."""
        listeners = self._listeners
        for notice in notices:
            found = listeners.get(notice.topic)
            if found:
                size = sum(len(event.body) for event in notice.events) + len(notice.delta or b"")
                for subscription in found:
                    subscription.put(notice, size)

    def subscribe(self, *topics: str) -> InprocSubscription:
        """See the port."""
        subscription = InprocSubscription(self, topics)
        for topic in topics:
            found = self._listeners.get(topic)
            if found is None:
                found = self._listeners[topic] = set()
                if self._audience is not None:
                    self._audience.came(topic)
            found.add(subscription)
        return subscription

    def forget(self, subscription: InprocSubscription, topics: Sequence[str]) -> None:
        """Stop sending to `subscription`; idempotent."""
        for topic in topics:
            found = self._listeners.get(topic)
            if found is not None:
                found.discard(subscription)
                if not found:
                    del self._listeners[topic]
                    if self._audience is not None:
                        self._audience.went(topic)

    def hears(self, topic: str) -> bool:
        """Whether anybody listens to `topic`."""
        return topic in self._listeners

    def look_again(self, topics: Iterable[str] | None = None) -> None:
        """Something may have been lost: tell the listeners of `topics` (None: all) so; what waits for them stays."""
        for topic in tuple(self._listeners if topics is None else topics):
            for subscription in tuple(self._listeners.get(topic, ())):
                subscription.look_again()


class InprocSubscription:
    """See `ports.notifier.Subscription`. One task at a time waits in `next`."""

    __slots__ = ("_bytes", "_closed", "_full", "_lost", "_notices", "_notifier", "_topics", "_waiter")

    def __init__(self, notifier: InprocNotifier, topics: Sequence[str]) -> None:
        self._notifier = notifier
        self._topics = topics
        self._notices: deque[Notice] = deque()
        self._bytes = 0
        self._full = False
        self._lost = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, notice: Notice, size: int) -> None:
        """Leave a notice for the listener; when too many lie there, all are dropped and `next` says so."""
        if self._full:
            return
        if len(self._notices) >= MOST_NOTICES or self._bytes + size > MOST_BYTES:
            self._notices.clear()
            self._bytes = 0
            self._full = self._lost = True
        else:
            self._notices.append(notice)
            self._bytes += size
        self._wake()

    def look_again(self) -> None:
        """Something was lost elsewhere: once what lies here has been taken, `next` is empty once."""
        self._lost = True
        self._wake()

    async def next(self, timeout: float) -> Sequence[Notice]:
        """See the port."""
        if not (self._notices or self._lost or self._closed):
            await self._wait(timeout)
        taken = tuple(self._notices)
        self._notices.clear()
        self._bytes = 0
        self._full = False
        self._lost = self._lost and bool(taken)
        return taken

    def close(self) -> None:
        """See the port."""
        self._closed = True
        self._notices.clear()
        self._notifier.forget(self, self._topics)
        self._wake()

    async def _wait(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
