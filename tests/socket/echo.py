"""A bare ASGI application that says back what it hears, on the server exactly as the product runs it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from overnight.server.asgi import Receive, Scope, Send
from overnight.server.serve import Listen, serving


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] != "websocket":
        return
    await receive()
    protocols = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": protocols[0] if protocols else None})
    while (message := await receive())["type"] == "websocket.receive":
        data = {"text": message["text"]} if message.get("text") is not None else {"bytes": message["bytes"]}
        await send({"type": "websocket.send", **data})


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """The port of a server that echoes."""
    async with serving(echo, Listen(port=0, grace_s=1), end_streams=lambda: None) as where:
        yield where.port
