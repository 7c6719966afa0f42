"""Servers of WebSockets for the benchmarks: `python -m bench.socket_servers bare|door|fan PORT`.

`bare` is uvicorn as it comes, with an application that says back what it hears; `door` does the same behind our own
protocol and transport; `fan` sends a log over the socket protocol, as often as it is asked for.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvicorn
import uvloop

from overnight.client.socket.link import Link
from overnight.client.socket.terms import Admission
from overnight.server.asgi import CLIENT
from overnight.server.serve import Listen, serving
from overnight.server.socket.transport import ServedTransport
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.limits import Limits

EVENT = b'{"seq":1,"type":"message.completed","at":"2026-11-22T00:00:00.000Z","data":{"text":"%b"}}' % (
    b"x" * 212
)
EVENTS = 6400
"""Of the log that `fan` sends."""
BATCH = 64
PIECE = b"x" * 16_384


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least: what comes is sent back."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def door(scope: Any, receive: Any, send: Any) -> None:
    """The same by way of the transport that links use."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "overnight.v1"})
    transport = _transport(scope, receive, send)
    while (message := await transport.receive()) is not None:
        if message == "flood":
            for _ in range(4096):
                await transport.send(PIECE)
        else:
            await transport.send(message.encode())


async def fan(scope: Any, receive: Any, send: Any) -> None:
    """A log of EVENTS events for whoever subscribes: after 0 in batches made once, after 1 one message for each."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "overnight.v1"})
    single = scope["query_string"] == b"single"
    link = Link(
        "server", _transport(scope, receive, send), limits=Limits(max_batch=1 if single else 256),
        handlers={"run.subscribe": _log}, on_hello=_greet,
    )  # fmt: skip
    await link.run()


async def _greet(_: Link, __: object) -> Admission:
    return Admission(connection="c", resume_key="k")


async def _log(link: Link, envelope: Envelope) -> None:
    await link.send(envelope.scope, "ack", {"cursor": 0}, reply_to=envelope.id)
    size = BATCH if envelope.payload["after"] == 0 else 1
    rendered = b'{"cursor":%d,"events":[%b]}' % (size, b",".join([EVENT] * size))
    for _ in range(EVENTS // size):
        await link.send(envelope.scope, "run.events", rendered)
    await link.end(envelope.scope, "run.end", {"cursor": EVENTS})


def _transport(scope: Any, receive: Any, send: Any) -> ServedTransport:
    return ServedTransport(
        receive, send, scope["extensions"][CLIENT]["is"], patience_s=10, first_bytes=None
    )  # fmt: skip


async def _lifespan(receive: Any, send: Any) -> None:
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})


async def _serve(app: Any, port: int) -> None:
    async with serving(app, Listen(port=port), end_streams=lambda: None):
        await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    name, port = sys.argv[1], int(sys.argv[2])
    if name == "bare":
        uvicorn.run(
            bare, host="127.0.0.1", port=port, loop="uvloop", http="httptools", ws="websockets-sansio", lifespan="off",
            log_config=None, access_log=False, ws_per_message_deflate=False, backlog=2048,
        )  # fmt: skip
        return
    uvloop.run(_serve({"door": door, "fan": fan}[name], port))


if __name__ == "__main__":
    main()
