"""The ASGI types, and answering without a framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Protocol

import orjson

from overnight.errors import OvernightError
from overnight.wire import problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

CALLER: Final = "overnight.caller"
"""Key of the scope under which the gate leaves the `Caller`."""

AFTERWARDS: Final = "overnight.afterwards"
"""Key of the scope under which the gate leaves a list: what is put there is called with `send` once the framework has
let go of the request, and the request is forgotten. Streams do that, so that an idle one keeps none of it alive.
"""

CLIENT: Final = "overnight.client"
"""Extension of the scope: what `serve` leaves there is `{"is": Client}`."""


class Client(Protocol):
    """Who has asked, as a connection."""

    def watch(self, leaving: Callable[[], None] | None) -> None:
        """Have `leaving` called when the client leaves, at once when it has left; None: nobody wants to know.

        For answers that take long: `receive` tells the same, but wants a task that waits for it.
        """
        ...

    def abort(self) -> None:
        """Drop the connection at once, with all that the client has not read."""
        ...


def headers_of(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a header; `name` in lower case."""
    return [value for key, value in scope["headers"] if key == name]


class SocketClient(Protocol):
    """The same of a WebSocket."""

    def watch_stop(self, stopping: Callable[[], None]) -> None:
        """Have `stopping` called when the server stops; the socket is then ended by whoever asked, within the grace."""
        ...

    def write_text(self, message: bytes) -> None:
        """Send a text message, given as UTF-8, at once and however full it is. Raises OSError when it is over.

        `send` of the application does the same, with a string made and unmade on the way.
        """
        ...

    @property
    def full(self) -> bool:
        """Whether the client has not read what it was sent before, and no more fits."""
        ...

    async def drained(self) -> None:
        """Wait until it is not full, or over."""
        ...

    def abort(self) -> None:
        """Drop the connection at once, with all that the client has not read."""
        ...


async def answer(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[Header],
    *,
    content_type: bytes = b"application/json",
) -> None:
    """Send a whole response."""
    head = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, error: OvernightError, headers: Iterable[Header] = ()) -> None:
    """Send an error as a problem document."""
    extra = list(headers)
    if error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if (wait := problem.retry_after(error)) is not None:
        extra.append((b"retry-after", b"%d" % wait))
    body = orjson.dumps(problem.document(error))
    await answer(send, error.status, body, extra, content_type=problem.MEDIA_TYPE.encode())
