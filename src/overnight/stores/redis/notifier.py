"""The notifier that reaches other processes through Valkey or Redis.

Events travel in one bounded stream for each run or session, so that whoever follows it reads them without touching
the database; wake-ups and deltas are published and heard once. Nothing here is a source of truth: with the server
away, slow, flushed or full, everything still arrives, by the slow poll of whoever follows.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from overnight.ports.meter import RelayMeter
from overnight.ports.notifier import STREAM, Notice
from overnight.stores.inproc.notifier import InprocNotifier, InprocSubscription
from overnight.stores.redis.link import ANSWER_S, Address
from overnight.stores.redis.listening import Listening
from overnight.stores.redis.resp import BY_LENGTH, Keys
from overnight.stores.redis.sending import Sending
from overnight.stores.redis.watching import Watching
from overnight.stores.relay.figures import Figures
from overnight.stores.relay.line import Health, LineLost, tend
from overnight.stores.relay.outbox import Outbox

STREAM_LENGTH: Final = 2000
TTL_S: Final = 3600
START_S: Final = 3.0
"""Longest time that `start` waits for the server."""
CLOSE_S: Final = 1.0
"""Longest time that `close` spends on what still waits to be sent."""


class RedisNotifier:
    """See `ports.notifier.Notifier`. Belongs to the loop on which it was started; one for each process.

    `url` is `redis://`, `rediss://` or `unix://` (ValueError for anything else) and names a single server, or the
    primary behind a name; no cluster. `stream_length` bounds the events kept of a run, about; `ttl_s` is how long they
    stay after the last. A server that does not answer within `answer_s` counts as gone. All processes of an
    installation use the same `prefix`.
    """

    def __init__(
        self,
        url: str,
        *,
        meter: RelayMeter | None = None,
        prefix: str = "overnight",
        stream_length: int = STREAM_LENGTH,
        ttl_s: int = TTL_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        address, keys, by = Address(url, answer_s=answer_s), Keys(prefix), secrets.token_hex(BY_LENGTH // 2)
        self._hub = InprocNotifier(self)
        self._figures = Figures("valkey", meter)
        self._outbox = Outbox(self._figures)
        self._health = Health("valkey", address.shown, self._figures, ("sending", "reading", "listening"))
        self._sending = Sending(
            address, keys, by, self._outbox, self._figures, length=stream_length, ttl_s=ttl_s
        )
        self._watching = Watching(address, keys, by, self._hub, self._figures)
        self._listening = Listening(address, keys, by, self._hub, self._figures)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def figures(self) -> Figures:
        """What was carried, and what was not."""
        return self._figures

    @property
    def trouble(self) -> str | None:
        """Why nothing, or not everything, is carried at this moment; holds no secret."""
        return self._health.trouble

    @property
    def watched(self) -> int:
        """Streams that somebody here follows."""
        return self._watching.count

    async def start(self) -> None:
        """Connect. Does not fail: where the server is not to be had, it is tried again for as long as this lives."""
        for line, session in (
            ("sending", self._sending.session),
            ("reading", self._watching.session),
            ("listening", self._listening.session),
        ):
            work = tend(line, partial(session, self._health), self._health)
            self._tasks.append(asyncio.create_task(work, name=f"notifier {line}"))
        await self._health.tried(START_S)

    async def close(self) -> None:
        """Send what waits, if that is quickly done, and end; idempotent."""
        if not self._tasks:
            return
        with suppress(TimeoutError, LineLost):
            async with asyncio.timeout(CLOSE_S):
                await self._outbox.drained()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._health.trouble is None:
            with suppress(TimeoutError, LineLost):
                async with asyncio.timeout(CLOSE_S):
                    await self._sending.forget_bell()
        self._figures.stands(connected=False)

    def publish(self, notices: Sequence[Notice]) -> None:
        """See the port: delivered here at once, sent to the others soon."""
        self._watching.published(notices)
        self._hub.publish(notices)
        self._outbox.put(notices)

    def subscribe(self, *topics: str) -> InprocSubscription:
        """See the port."""
        return self._hub.subscribe(*topics)

    def came(self, topic: str) -> None:
        """See `stores.inproc.notifier.Audience`."""
        if topic.startswith(STREAM):
            self._watching.watch(topic)
            self._listening.listen(topic)
            if self._watching.is_blocked:
                self._sending.ring()

    def went(self, topic: str) -> None:
        """See `stores.inproc.notifier.Audience`."""
        if topic.startswith(STREAM):
            self._watching.unwatch(topic)
            self._listening.unlisten(topic)
