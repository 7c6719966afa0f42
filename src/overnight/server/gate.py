"""The gate: whatever reaches the application, over http or websocket, has passed here first. Denied by default.

In this order: Host and Origin, path tricks, the token, what that kind of token may do, the size of the body. Only
the exact bytes of an open path are open; nothing is normalised on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final

import structlog

from overnight.client.socket.target import PATH
from overnight.errors import (
    BodyTooLarge,
    InvalidInput,
    NotFound,
    OriginRefused,
    OvernightError,
    Unauthorized,
    UnsupportedMediaType,
)
from overnight.server.access import Access
from overnight.server.asgi import (
    AFTERWARDS,
    CALLER,
    App,
    Header,
    Message,
    Receive,
    Scope,
    Send,
    headers_of,
    refuse,
)
from overnight.server.auth import Authenticator
from overnight.server.login import COOKIE
from overnight.server.metrics import Meters
from overnight.server.services import ServerSettings
from overnight.server.socket.endpoint import SocketEndpoint

OPEN: Final = frozenset(
    {(method, path) for method in (b"GET", b"HEAD") for path in (b"/", b"/livez", b"/readyz")}
    | {(b"POST", b"/login")}
)
"""All that can be had without a token, as the bytes of method and path."""
SECURITY_HEADERS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_OPEN_BODY: Final = 4096
"""A body from somebody without a token is this long at most."""
_OPENING: Final = 16
"""So many streams are opened at a time. All readers of a server that was restarted come back at once: the framework
would take several times the memory for each of them that it then needs, and never give it back.
"""
_KEPT: Final = ("type", "method", "path", "query_string", "http_version", "client")
_DISCARD: Final = 16 * 1024 * 1024
_DISCARD_S: Final = 1.0
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_TRICKS: Final = re.compile(
    rb"//|\\|%2f|%5c|%25|%2e|/\.{1,2}(?:/|$)|%[01][0-9a-f]|%7f|[\x00-\x20\x7f]", re.IGNORECASE
)
"""No route has any of these. A line end at the end is the worst: patterns of routes match in front of it."""
_BEARER: Final = re.compile(rb"(?i:bearer) +([!-~]+) *")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.IGNORECASE)

log = structlog.get_logger(__name__)


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: App,
        *,
        settings: ServerSettings,
        authenticator: Authenticator,
        access: Access,
        meters: Meters,
        socket: SocketEndpoint,
    ) -> None:
        self._app = app
        self._socket = socket
        self._settings = settings
        self._hosts = frozenset(_bracketed(host.lower()) for host in settings.hosts)
        self._authenticator = authenticator
        self._access = access
        self._meters = meters
        self._opening = asyncio.Semaphore(_OPENING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let pass, or refuse."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(send, secure=self._settings.secure)
        afterwards: list[Callable[[Send], Awaitable[None]]] = []
        scope[AFTERWARDS] = afterwards
        began = time.perf_counter()
        try:
            await self._guarded(scope, exchange, self._answered(scope, receive, exchange))
        finally:
            status = 200 if afterwards else exchange.status
            self._meters.request(scope["method"], status, time.perf_counter() - began)
        if afterwards:
            _forget(scope)
            await self._guarded(scope, exchange, afterwards.pop()(exchange.send))

    async def _answered(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        await self._admit(scope)
        if scope["method"] in _BODY_METHODS:
            receive = await self._whole_body(scope, receive)
        async with self._turn(scope):
            await self._app(_as_get(scope), receive, exchange.send)

    def _turn(self, scope: Scope) -> contextlib.AbstractAsyncContextManager[None]:
        """The routes of streams answer soon; what they open goes on afterwards."""
        path = scope["path"]
        opens = path.endswith("/stream") or path.startswith("/api/v1/openai/")
        return self._opening if opens else contextlib.nullcontext()

    async def _guarded(self, scope: Scope, exchange: _Exchange, work: Awaitable[None]) -> None:
        """Whatever it raises becomes a refusal, as long as nothing has been answered."""
        try:
            await work
        except OvernightError as error:
            await exchange.refuse(error)
        except Exception:
            log.exception("request.failed", method=scope["method"], path=scope["path"][:200])
            if not exchange.complete:
                await exchange.refuse(OvernightError())

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The handshake is refused with a plain HTTP answer where the server can do that, else closed."""
        try:
            await self._admit_socket(scope)
        except OvernightError as error:
            await receive()
            if "websocket.http.response" in scope.get("extensions", {}):
                await refuse(_as_denial(send), error)
            else:
                await send({"type": "websocket.close", "code": 1008})
        else:
            await self._socket(scope, receive, send)

    async def _admit_socket(self, scope: Scope) -> None:
        """Let in whoever has a token, and to the socket itself those who will say one in their first message."""
        asked = {**scope, "method": "GET"}
        at_the_socket = _path(scope) == PATH.encode()
        if at_the_socket and not headers_of(scope, b"authorization") and _secret(scope) is None:
            self._check_host(asked)
            self._check_origin(asked)
        else:
            await self._admit(asked)
            scope[CALLER] = asked[CALLER]
        if not at_the_socket:
            raise NotFound("there is no socket here")
        self._socket.check(scope, scope.get(CALLER))

    async def _admit(self, scope: Scope) -> None:
        self._check_host(scope)
        self._check_origin(scope)
        path = _path(scope)
        if scope["type"] == "http" and (scope["method"].encode(), path) in OPEN:
            return
        if scope["type"] == "http" and _is_unix(scope):
            raise NotFound("there is nothing here but the socket")
        caller = await self._authenticator.caller(_secret(scope))
        if _TRICKS.search(path):
            raise NotFound("no such path")
        caller.check(scope["method"], scope["path"])
        scope[CALLER] = await self._access.admitted(
            caller, scope["method"], scope["path"], scope.get("query_string", b"")
        )

    def _check_host(self, scope: Scope) -> None:
        hosts = headers_of(scope, b"host")
        match = _HOST.fullmatch(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        if match is None or match[1].lower() not in self._hosts:
            raise OriginRefused("the Host header names none of this server's addresses")

    def _check_origin(self, scope: Scope) -> None:
        """Another origin's page gets nothing, whatever the verb; a link to the shell may be followed from anywhere."""
        origins = headers_of(scope, b"origin")
        if origins and not (
            len(origins) == 1 and self._own_origin(scope, origins[0].decode("latin-1").lower())
        ):
            raise OriginRefused("the Origin is not this server's")
        site = headers_of(scope, b"sec-fetch-site")
        foreign = any(value not in (b"same-origin", b"none") for value in site)
        if foreign and not (scope.get("method") == "GET" and scope["path"] == "/"):
            raise OriginRefused("the request comes from another site's page")

    def _own_origin(self, scope: Scope, origin: str) -> bool:
        host = headers_of(scope, b"host")[0].decode("latin-1").lower()
        schemes = ("https",) if self._settings.secure else ("http", "https")
        return origin in self._settings.origins or any(origin == f"{scheme}://{host}" for scheme in schemes)

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        """The body, read and counted as it arrives; the application gets it in one piece."""
        limit = self._settings.body_limit(scope["path"]) if CALLER in scope else _OPEN_BODY
        declared = headers_of(scope, b"content-length")
        if declared and (not declared[0].isdigit() or int(declared[0]) > limit):
            raise await _too_large(scope, receive, limit)
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidInput("the client left before its body was complete")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise await _too_large(scope, receive if more else None, limit)
        _check_content_type(scope, bool(body))
        return _replay(bytes(body), receive)


class _Exchange:
    """One response: adds the security headers, and knows whether it can still become a refusal."""

    def __init__(self, send: Send, *, secure: bool) -> None:
        self._send = send
        self._headers = SECURITY_HEADERS
        if secure:
            self._headers += ((b"strict-transport-security", b"max-age=31536000"),)
        self.status = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            added = [
                pair for pair in (*self._headers, (b"cache-control", b"no-store")) if pair[0] not in present
            ]
            message = {**message, "headers": [*message["headers"], *added]}
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, error: OvernightError) -> None:
        """Answer with the problem; a response that has begun is cut instead."""
        if self.status:
            raise error
        closing = [(b"connection", b"close")] if error.status in (413, 500) else []
        await refuse(self.send, error, closing)


def _path(scope: Scope) -> bytes:
    """As it came."""
    path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    return path


def _is_unix(scope: Scope) -> bool:
    """Whether it came by the listener in a folder: for those who have no network, and need none of the routes."""
    server = scope.get("server")
    return server is not None and server[1] is None


def _secret(scope: Scope) -> str | None:
    """The bearer token, else the cookie's; two tokens at once are nobody."""
    given = headers_of(scope, b"authorization")
    if given:
        match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
        return match[1].decode("ascii") if match else None
    try:
        jar = SimpleCookie(b"; ".join(headers_of(scope, b"cookie")).decode("latin-1"))
    except CookieError:
        raise Unauthorized("the cookie cannot be read") from None
    return jar[COOKIE].value if COOKIE in jar else None


async def _too_large(scope: Scope, receive: Receive | None, limit: int) -> BodyTooLarge:
    """The refusal; somebody with a token may first send on for a moment, else the answer would be lost in a reset."""
    left = _DISCARD if CALLER in scope and not headers_of(scope, b"expect") else 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while receive is not None and left > 0:
                message = await receive()
                left = left - len(message.get("body", b"")) if message.get("more_body") else 0
    return BodyTooLarge(f"a body may have at most {limit} bytes")


def _check_content_type(scope: Scope, has_body: bool) -> None:
    if not has_body:
        return
    kinds = headers_of(scope, b"content-type")
    kind = kinds[0].split(b";")[0].strip().lower() if len(kinds) == 1 else b""
    if kind != b"application/json":
        raise UnsupportedMediaType("bodies are JSON", mend="send `Content-Type: application/json`")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def replayed() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replayed


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered like GET; the server leaves the body out. Streams look at `head` and send nothing.

    Always a copy: what the framework puts into it goes with it.
    """
    if scope["method"] != "HEAD":
        return {**scope}
    return {**scope, "method": "GET", "overnight.head": True}


def _forget(scope: Scope) -> None:
    """Let go of what the request has brought, all but what a log may say of it, the server's or ours."""
    kept = {name: scope[name] for name in _KEPT}
    scope["headers"].clear()  # a list that the server keeps too
    scope.clear()
    scope.update(kept)


def _as_denial(send: Send) -> Send:
    async def denied(message: Message) -> None:
        await send({**message, "type": message["type"].replace("http.response", "websocket.http.response")})

    return denied
