"""One connection to Valkey or Redis: made by the library from a URL, bounded in time, and silent about secrets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from overnight.stores.redis.resp import pack
from overnight.stores.relay.line import LineLost

ANSWER_S: Final = 3.0

Reply = Any
"""None, an integer, bytes, a list of replies, or a `ResponseError`."""


class Address:
    """Where the server is: a `redis://`, `rediss://` or `unix://` URL, whose password is never shown.

    A server that has not answered within `answer_s` seconds counts as gone. Raises ValueError for a URL of another
    kind, with a text that can be shown.
    """

    def __init__(self, url: str, *, answer_s: float = ANSWER_S) -> None:
        self.answer_s: Final = answer_s
        found = _parsed(url)
        found.pop("max_connections", None)
        self._kind: type[AbstractConnection] = found.pop("connection_class", Connection)
        self._options: Mapping[str, Any] = {
            **found,
            "protocol": 2,  # one shape of replies from all servers
            "socket_timeout": None,
            "socket_connect_timeout": answer_s,
            "retry": Retry(NoBackoff(), 0),  # connections are kept up in one place, `relay.line`
            "driver_info": None,
            **({"socket_keepalive": True} if "path" not in found else {}),
        }
        self.shown: Final = found.get("path") or (
            f"{found.get('host', 'localhost')}:{found.get('port', 6379)}/{found.get('db', 0)}"
        )
        """Where, without who and with what password."""
        try:
            self.connection()
        except (TypeError, RedisError):
            raise ValueError(
                "an option behind the question mark of the address, or its value, is not known"
            ) from None

    def connection(self) -> AbstractConnection:
        """One that is not connected yet."""
        return self._kind(**self._options)

    def said(self, error: BaseException) -> str:
        """What an error says, without the password that it might repeat."""
        text = str(error) or type(error).__name__
        code = getattr(error, "status_code", None)  # which the library has cut off
        if code is not None and not text.startswith(code):
            text = f"{code} {text}"
        for secret in (self._options.get("password"), self._options.get("username")):
            if secret:
                text = text.replace(secret, "***")
        return text[:200]


def _parsed(url: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise ValueError("the address of Redis or Valkey must be redis://, rediss:// or unix://") from None
    place = urlsplit(url)
    if place.scheme == "unix" and (place.netloc.rpartition("@")[2] or not place.path):
        raise ValueError("the path of the socket must be absolute, as in unix:///run/valkey.sock")
    database = place.path.removeprefix("/")
    if place.scheme != "unix" and database and not (database.isascii() and database.isdecimal()):
        raise ValueError("what stands behind the host of Redis or Valkey must be the number of a database")
    return found


class Link:
    """A connection that has answered. Whatever goes wrong with it is a `LineLost`; then it must be closed."""

    def __init__(self, address: Address, connection: AbstractConnection) -> None:
        self._address = address
        self._connection = connection

    @classmethod
    async def open(cls, address: Address) -> Link:
        """Connect, and make sure that the server answers us. Raises LineLost."""
        link = cls(address, address.connection())
        try:
            async with asyncio.timeout(2 * address.answer_s):
                await link._connection.connect()  # type: ignore[no-untyped-call]
            (answer,) = await link.ask(pack(b"PING"), 1)
            if isinstance(answer, ResponseError):
                raise LineLost(address.said(answer))
        except (RedisError, OSError) as error:
            await link.close()
            raise LineLost(address.said(error)) from None
        except TimeoutError:
            await link.close()
            raise LineLost("the server does not answer") from None
        except BaseException:
            await link.close()
            raise
        return link

    async def ask(self, packed: bytes, replies: int, *, patience_s: float = 0.0) -> list[Reply]:
        """Send commands and wait for that many replies; refusals are among them. Raises LineLost.

        `patience_s` is how much longer than usual the server may take.
        """
        try:
            async with asyncio.timeout(self._address.answer_s + patience_s):
                await self._send(packed)
                return [await self._reply(math.inf) for _ in range(replies)]
        except TimeoutError:
            raise LineLost("the server does not answer") from None

    async def say(self, packed: bytes) -> None:
        """Send commands whose replies somebody else reads. Raises LineLost."""
        try:
            async with asyncio.timeout(self._address.answer_s):
                await self._send(packed)
        except TimeoutError:
            raise LineLost("the server does not answer") from None

    async def hear(self, timeout: float) -> Reply:
        """The next thing that the server says; None after `timeout` seconds. Raises LineLost."""
        return await self._reply(timeout)

    async def close(self) -> None:
        """Let go of it; idempotent."""
        await self._connection.disconnect(nowait=True)

    async def _send(self, packed: bytes) -> None:
        if not self._connection.is_connected:  # the library would connect anew, behind our back
            raise LineLost("the server has closed the connection")
        try:
            await self._connection.send_packed_command([packed], check_health=False)
        except (RedisError, OSError) as error:
            raise LineLost(self._address.said(error)) from None

    async def _reply(self, timeout: float) -> Reply:
        try:
            return await self._connection.read_response(disable_decoding=True, timeout=timeout)
        except ResponseError as refusal:
            return refusal
        except (RedisError, OSError) as error:
            raise LineLost(self._address.said(error)) from None
