"""Sends requests to the server of the moment, and turns what goes wrong into the one exception tree."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import httpx2

from overnight.client.connecting import connecting
from overnight.client.document import encoded
from overnight.client.endpoint import Endpoint, Locate
from overnight.client.problems import error_of
from overnight.errors import Unreachable

Query = Mapping[str, str | int | float | bool | Sequence[str] | None]
Headers = Mapping[str, str]
TIMEOUT: Final = httpx2.Timeout(60.0, connect=5.0)
QUIET_S: Final = 50.0
"""A stream that says nothing for this long is dead: the server sends a keep-alive about every 15 s."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Transport:
    """One connection pool to one server; moves to another when `locate` says that it has restarted elsewhere."""

    def __init__(self, endpoint: Endpoint, locate: Locate | None = None) -> None:
        self._endpoint = endpoint
        self._locate = locate
        self._pools = [_pool(endpoint)]

    @property
    def endpoint(self) -> Endpoint:
        """The server that the next request goes to."""
        return self._endpoint

    @property
    def movable(self) -> bool:
        """Whether there is a way to find the server again."""
        return self._locate is not None

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        for pool in self._pools:
            await pool.aclose()

    async def relocate(self) -> bool:
        """Look for the server again; whether it is another one now (or the same with another token)."""
        found = self._locate() if self._locate else None
        if found is None or found == self._endpoint:
            return False
        # The old pool is closed at the end: another request may still be under way on it.
        self._pools.append(_pool(found))
        self._endpoint = found
        return True

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        query: Query | None = None,
        headers: Headers | None = None,
    ) -> httpx2.Response:
        """The answer, read whole, when it is one of the 2xx or 304.

        Raises the error that the problem document names, or Unreachable. A server that has moved is asked once more.
        """
        try:
            response = await self._send(method, path, json, query, headers)
            if response.status_code == 401 and await self.relocate():
                response = await self._send(method, path, json, query, headers)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # Nothing was sent, so asking the server that took over is safe whatever the method.
            if not await self.relocate():
                raise self._unreachable(error) from None
            response = await self._send_or_fail(method, path, json, query, headers)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None
        if response.is_success or response.status_code == 304:
            return response
        raise error_of(response.status_code, response.content)

    @asynccontextmanager
    async def stream(self, path: str, *, query: Query, headers: Headers) -> AsyncIterator[httpx2.Response]:
        """An open event stream, whatever its status. Raises httpx2.TransportError: the caller knows its cursor."""
        asked = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **headers}
        timeout = httpx2.Timeout(QUIET_S, connect=5.0)
        with connecting():
            async with self._pools[-1].stream(
                "GET", path, params=_text(query), headers=asked, timeout=timeout
            ) as response:
                yield response

    async def _send(
        self, method: str, path: str, json: object, query: Query | None, headers: Headers | None
    ) -> httpx2.Response:
        body = None if json is None else encoded(json)
        sent = dict(headers or {}) | ({"Content-Type": "application/json"} if body is not None else {})
        with connecting():
            return await self._pools[-1].request(
                method, path, content=body, params=_text(query), headers=sent
            )

    async def _send_or_fail(
        self, method: str, path: str, json: object, query: Query | None, headers: Headers | None
    ) -> httpx2.Response:
        try:
            return await self._send(method, path, json, query, headers)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx2.TransportError) -> Unreachable:
        why = str(error) or type(error).__name__
        return Unreachable(
            f"{self._endpoint.url} does not answer: {why}",
            mend="check the address, or start a server with: overnight up",
        )


def _pool(endpoint: Endpoint) -> httpx2.AsyncClient:
    parts = urlsplit(endpoint.url)
    return httpx2.AsyncClient(
        base_url=endpoint.url.rstrip("/"),
        headers={"Authorization": f"Bearer {endpoint.token}"},
        timeout=TIMEOUT,
        verify=_trust(endpoint, parts.scheme),
        # A proxy of the environment is for the internet, not for this machine.
        trust_env=parts.hostname not in _LOOPBACK,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
    )


def trust(endpoint: Endpoint) -> ssl.SSLContext:
    """Whose word counts for it that a server is the one that it says it is."""
    if endpoint.certificate is None:
        return httpx2.create_ssl_context()
    context = ssl.create_default_context(cafile=endpoint.certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _trust(endpoint: Endpoint, scheme: str) -> ssl.SSLContext | bool:
    if scheme == "http":
        # There is nothing to verify, and loading the certificates costs more than a request.
        return False
    return True if endpoint.certificate is None else trust(endpoint)


def _text(values: Query | None) -> dict[str, str | list[str]]:
    """As query parameters: None is left out, truth values in lower case, a sequence is repeated."""
    found: dict[str, str | list[str]] = {}
    for key, value in (values or {}).items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            found[key] = [str(item) for item in value]
        elif value is not None:
            found[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
