"""Many short calls to one server: HTTP/1.1 with JSON, over connections that stay open, and nothing else.

A worker elsewhere makes some ten of them for each run. A client for everything would take four fifths of its processor
time, and 5 MiB.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast
from urllib.parse import quote, urlsplit

import httptools

from overnight.client.document import encoded
from overnight.client.endpoint import Endpoint
from overnight.client.problems import error_of
from overnight.errors import ConfigInvalid, Unreachable

CONNECT_S: Final = 10.0
QUIET_S: Final = 60.0
"""A call of which nothing moves for this long, in neither direction, has failed. No answer is held back for longer."""
SPARE_S: Final = 4.0
"""How long a connection without a call is kept: servers, and whoever stands between, forget them soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answers, read whole."""

    status: int
    content: bytes


class Calls:
    """Calls of one caller, as many at a time as there are tasks that make them. Call `close` at the end."""

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.url)
        if not (endpoint.token.isascii() and endpoint.token.isprintable()):
            raise ConfigInvalid("the token has characters that no token has", mend="set it again")
        self._url = endpoint.url
        self._host = _plain(parts.hostname or "")
        usual = 443 if parts.scheme == "https" else 80
        self._port = parts.port or usual
        self._trust = _trust(endpoint) if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        name = f"[{self._host}]" if ":" in self._host else self._host
        self._head = (
            f"Host: {name}{'' if self._port == usual else f':{self._port}'}\r\n"
            f"Authorization: Bearer {endpoint.token}\r\n"
            "Content-Type: application/json\r\n"
        )
        self._spare: list[_Connection] = []

    async def request(self, method: str, path: str, *, json: object) -> Answer:
        """The answer, when it is one of the 2xx.

        Raises the error that the problem document names, or Unreachable: then the call may have been carried out.
        """
        body = encoded(json)
        target = quote(self._path + path, safe="/%?=&")
        head = f"{method} {target} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        try:
            answer = await self._ask(head.encode() + body)
        except (OSError, httptools.HttpParserError) as error:
            raise self._unreachable(error) from None
        if 200 <= answer.status < 300:
            return answer
        raise error_of(answer.status, answer.content)

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        while self._spare:
            self._spare.pop().drop()
        await asyncio.sleep(0)  # only then the loop lets go of them

    async def _ask(self, request: bytes) -> Answer:
        connection = self._found() or await self._connected()
        try:
            return await connection.ask(request)
        finally:
            if connection.is_spare:
                self._spare.append(connection)
            else:  # half an answer, when the caller was cancelled, would be in the way of the next
                connection.drop()

    def _found(self) -> _Connection | None:
        """The connection that was used last, of those that are still good."""
        while self._spare:
            connection = self._spare.pop()
            if connection.is_spare and connection.idle_s() < SPARE_S:
                return connection
            connection.drop()
        return None

    async def _connected(self) -> _Connection:
        named = self._host if self._trust is not None else None
        async with asyncio.timeout(CONNECT_S):
            _, made = await asyncio.get_running_loop().create_connection(
                partial(_Connection, self._forget), self._host, self._port,
                ssl=self._trust, server_hostname=named,
            )  # fmt: skip
        return made

    def _forget(self, connection: _Connection) -> None:
        if connection in self._spare:
            self._spare.remove(connection)

    def _unreachable(self, error: Exception) -> Unreachable:
        why = str(error) or type(error).__name__
        return Unreachable(
            f"{self._url} does not answer: {why}",
            mend="check the address, or start a server with: overnight up",
        )


class _Connection(asyncio.Protocol):
    """One connection, with at most one call on it at a time. The methods `on_…` are the parser's."""

    def __init__(self, lost: Callable[[_Connection], None]) -> None:
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._content: list[bytes] = []
        self._heard = 0
        self._used_at = 0.0
        self.is_spare = False
        """Whether the next call can be made on it."""

    async def ask(self, request: bytes) -> Answer:
        """Send it, and wait for the answer. Raises OSError, HttpParserError."""
        loop = asyncio.get_running_loop()
        transport = self._transport
        if transport is None:
            raise ConnectionResetError("the server has closed the connection")
        self.is_spare = False
        self._parser = httptools.HttpResponseParser(self)
        self._answer = loop.create_future()
        transport.write(request)
        moved = self._heard, transport.get_write_buffer_size()
        while not (await asyncio.wait((self._answer,), timeout=QUIET_S))[0]:
            before, moved = moved, (self._heard, transport.get_write_buffer_size())
            if moved == before:
                raise TimeoutError(f"nothing was heard for {QUIET_S:g} s")
        self._used_at = loop.time()
        return self._answer.result()

    def idle_s(self) -> float:
        """Seconds since the last answer."""
        return asyncio.get_running_loop().time() - self._used_at

    def drop(self) -> None:
        """Close it at once, whatever is under way. Idempotent."""
        self.is_spare = False
        if self._answer is not None:
            self._answer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard += len(data)
        if self._answer is None or self._answer.done():
            self.drop()  # nobody has asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_message_begin(self) -> None:
        """An answer begins; a second one means that the server and we are not talking of the same call any more."""
        if self._answer is None or self._answer.done():
            self.is_spare = False

    def on_body(self, body: bytes) -> None:
        """A piece of the content."""
        self._content.append(body)

    def on_message_complete(self) -> None:
        """The end of an answer, or of what only says that one will come."""
        status = self._parser.get_status_code()
        content, self._content = b"".join(self._content), []
        if status >= 200 and self._answer is not None and not self._answer.done():
            self.is_spare = self._parser.should_keep_alive()
            self._answer.set_result(Answer(status=status, content=content))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self.is_spare = False
        self._fail(exc or ConnectionResetError("the server has closed the connection"))
        self._lost(self)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _plain(host: str) -> str:
    """The name of a host as it is looked up."""
    if host.isascii() and len(host) < 64 and "" not in host.removesuffix(".").split("."):
        return host  # the codec would say the same, and its tables weigh 0.4 MiB
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise ConfigInvalid(f"{host!r} is no name of a host", mend="look for a dot too many") from None


def _trust(endpoint: Endpoint) -> ssl.SSLContext:
    """What all calls from this machine trust; whoever calls without TLS need not load it."""
    from overnight.client.transport import trust  # noqa: PLC0415 -- see above

    return trust(endpoint)
