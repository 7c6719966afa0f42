"""Hearing what is only said once: wake-ups of every kind, and the deltas of the streams that are followed here."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
from redis.exceptions import ResponseError

from overnight.ports.notifier import Notice
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.redis.link import Address, Link
from overnight.stores.redis.resp import BY_LENGTH, Keys, pack
from overnight.stores.relay.figures import Figures
from overnight.stores.relay.line import Health, LineLost

QUIET_S: Final = 2.0
"""After so long without a word the server is asked whether it is still there."""


class Listening:
    """The channels that are listened to, and the connection for them."""

    def __init__(self, address: Address, keys: Keys, by: str, hub: InprocNotifier, figures: Figures) -> None:
        self._address = address
        self._keys = keys
        self._by = by
        self._hub = hub
        self._figures = figures
        self._channels: dict[bytes, str] = {}
        """Those of the deltas that are wanted, with their topics."""
        self._asked: set[bytes] = set()
        """What the server was asked for."""
        self._changed = asyncio.Event()

    def listen(self, topic: str) -> None:
        """Hear the deltas of this stream too."""
        self._channels[self._keys.deltas(topic)] = topic
        self._changed.set()

    def unlisten(self, topic: str) -> None:
        """Hear them no longer."""
        self._channels.pop(self._keys.deltas(topic), None)
        self._changed.set()

    async def session(self, health: Health) -> None:
        """Connect and listen until the connection is lost: LineLost."""
        link = await Link.open(self._address)
        try:
            self._asked = {self._keys.wake, *self._channels}
            await self._confirmed(link)
            health.up("listening")
            self._hub.look_again()
            await self._both(link)
        finally:
            await link.close()

    async def _confirmed(self, link: Link) -> None:
        asked = sorted(self._asked)
        for answer in await link.ask(pack(b"SUBSCRIBE", *asked), len(asked)):
            if isinstance(answer, ResponseError):
                raise LineLost(self._address.said(answer))

    async def _both(self, link: Link) -> None:
        """Listen, and keep the server's list of channels as it should be, until either fails."""
        tasks = [asyncio.ensure_future(self._hear(link)), asyncio.ensure_future(self._keep(link))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, link: Link) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = {self._keys.wake, *self._channels}
            more, fewer = sorted(wanted - self._asked), sorted(self._asked - wanted)
            self._asked = wanted
            if more:
                await link.say(pack(b"SUBSCRIBE", *more))
            if fewer:
                await link.say(pack(b"UNSUBSCRIBE", *fewer))

    async def _hear(self, link: Link) -> None:
        while True:
            said = await link.hear(QUIET_S)
            if said is None:
                await link.say(pack(b"PING"))
                said = await link.hear(self._address.answer_s)
                if said is None:
                    raise LineLost("the server does not answer")
            if isinstance(said, ResponseError):
                raise LineLost(self._address.said(said))
            if said[0] == b"message":
                self._take(said[1], said[2])

    def _take(self, channel: bytes, payload: bytes) -> None:
        if channel == self._keys.wake:
            self._wake(payload)
            return
        topic = self._channels.get(channel)
        if topic is not None and payload[:BY_LENGTH] != self._by.encode():
            self._figures.add("heard")
            self._hub.publish([Notice(topic=topic, delta=payload[BY_LENGTH:])])

    def _wake(self, payload: bytes) -> None:
        try:
            said = orjson.loads(payload)
            if said["by"] != self._by:
                self._woken(said)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
            self._figures.add("missed")

    def _woken(self, said: dict[str, Any]) -> None:
        if said.get("all"):
            self._hub.look_again()
        notices = [Notice(topic=topic) for topic in said.get("wake", ()) if self._hub.hears(topic)]
        if told := said.get("told"):
            topic, delta = told
            if self._hub.hears(topic):
                notices.append(Notice(topic=topic, delta=delta.encode()))
        self._figures.add("heard", len(notices))
        self._hub.publish(notices)
