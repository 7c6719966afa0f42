"""A client that says exactly what it is told to, right or wrong, and looks at what comes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from overnight.testing.conformance.socket.offer import Offer, Said, Wire

Heard = dict[str, Any]


class Broken(AssertionError):
    """The server does not keep to the protocol; says how."""


def expect(held: object, said: str) -> None:
    """Judge."""
    if not held:
        raise Broken(said)


class Probe:
    """One connection to the server."""

    def __init__(self, wire: Wire, offer: Offer) -> None:
        self.wire = wire
        self.offer = offer
        self.heard: list[Heard] = []
        """Everything that has come, in order."""
        self.welcome: Heard = {}
        self.events: Counter[str] = Counter()
        """How many have come in each scope."""
        self._next = itertools.count(1)
        self._seqs: dict[str, int] = {}
        self._waiting: list[Heard] = []
        self._granted: dict[str, int] = {}
        self._of: dict[str, list[Heard]] = {}

    async def raw(self, message: bytes) -> None:
        """Send this, whatever it is."""
        await self.wire.send(message)

    def envelope(self, scope: str, said: Said, **changes: Any) -> Heard:
        """A sound envelope with the next number of its scope, but for the changes."""
        seq = self._seqs.get(scope, 0) + 1
        if "seq" not in changes:
            self._seqs[scope] = seq
        whole: Heard = {
            "v": 1, "type": said.type, "scope": scope, "id": f"p{next(self._next)}", "seq": seq,
            "ts": time.time_ns() // 1_000_000, "payload": dict(said.payload), **changes,
        }  # fmt: skip
        return whole

    async def say(
        self, scope: str, type_: str, payload: Mapping[str, Any] | None = None, **changes: Any
    ) -> str:
        """Send one envelope, and give its id."""
        one = self.envelope(scope, Said(type=type_, payload=payload or {}), **changes)
        await self.raw(orjson.dumps(one))
        return str(one.get("id", ""))

    async def hear(self) -> Heard | None:
        """The next envelope; None when the connection has ended."""
        if not self._waiting:
            async with asyncio.timeout(self.offer.patience_s):
                data = await self.wire.receive()
            if data is None:
                return None
            found = orjson.loads(data)
            self._waiting = found[::-1] if isinstance(found, list) else [found]
        one = self._waiting.pop()
        self.heard.append(one)
        self._of.setdefault(one["scope"], []).append(one)
        if self.role(one) in ("event", "transient"):
            self.events[one["scope"]] += 1
        return one

    async def until(self, what: str, wanted: Callable[[Heard], bool]) -> Heard:
        """The first envelope from here on that is wanted. Broken when none comes."""
        try:
            while (one := await self.hear()) is not None:
                if wanted(one):
                    return one
        except TimeoutError:
            raise Broken(f"{what} did not come within {self.offer.patience_s:g} s") from None
        raise Broken(f"{what} did not come before the connection ended")

    async def reply(self, request: str) -> Heard:
        """What answers a request."""
        return await self.until(f"the reply to {request}", lambda one: one.get("reply_to") == request)

    async def nacked(self, request: str, code: str) -> Heard:
        """The nack to a message, which must have this code."""
        found = await self.reply(request)
        expect(found["type"] == "nack", f"{found['type']} came where a nack {code} was due")
        got = found["payload"].get("code")
        expect(got == code, f"the nack says {got}, not {code}")
        return found

    async def alive(self) -> None:
        """The connection must answer a ping."""
        await self.reply(await self.say("conn", "ping"))

    async def ended(self) -> None:
        """The connection must end, whatever is said before."""
        try:
            while await self.hear() is not None:
                pass
        except TimeoutError:
            raise Broken("the connection was not closed") from None

    async def hello(self, **payload: Any) -> Heard:
        """Greet the server, and give its welcome."""
        told: dict[str, Any] = {"versions": [1], **payload}
        if self.offer.token is not None:
            told["token"] = self.offer.token
        found = await self.reply(await self.say("conn", "hello", told))
        expect(found["type"] == "welcome", f"hello was answered by {found['type']}: {found['payload']}")
        self.welcome = dict(found["payload"])
        return found

    async def grant(self, scope: str, count: int) -> None:
        """Let so many more events come."""
        self._granted[scope] = self._granted.get(scope, 0) + count
        await self.say("conn", "credit", {"scope": scope, "messages": count})

    async def grant_heard(self, scope: str) -> None:
        """Let as many events come as have come and were not granted before."""
        if (more := self.events[scope] - self._granted.get(scope, 0)) > 0:
            await self.grant(scope, more)

    def of(self, scope: str) -> list[Heard]:
        """What has come in one scope."""
        return self._of.get(scope, [])

    def role(self, one: Heard) -> str:
        """What the catalog says of its type."""
        found = self.offer.catalog.get(one["type"])
        return "unknown" if found is None else found.role


@asynccontextmanager
async def probing(offer: Offer, *, greeted: bool = True) -> AsyncIterator[Probe]:
    """A connection to the server, which ends with the block."""
    probe = Probe(await offer.connect(), offer)
    try:
        if greeted:
            await probe.hello()
        yield probe
    finally:
        await probe.wire.close(1000, "")
