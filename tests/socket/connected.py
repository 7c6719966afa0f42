"""A connected transport, for tests that speak to it as its peer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.socket.raw import CLOSE, Peer, Serve, frame, server

from overnight.client.socket.opening import MAX_MESSAGE, Patience
from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport

QUICK = Patience(close_s=0.3)


@contextlib.asynccontextmanager
async def connected(
    serve: Serve,
    *,
    patience: Patience | None = None,
    token: str | None = None,
    max_message: int = MAX_MESSAGE,
) -> AsyncIterator[SocketTransport]:
    """A transport that is connected to a peer that does as `serve` says."""
    transport = SocketTransport(patience, max_message=max_message)
    async with server(serve) as url:
        await transport.connect(Target(url=url, token=token))
        try:
            yield transport
        finally:
            await transport.close()


async def rest(peer: Peer) -> None:
    """Read what comes, and answer a close."""
    while (found := await peer.frame()) is not None:
        if found.opcode == CLOSE:
            await peer.send(frame(found.payload, CLOSE))
            return


async def all_of(transport: SocketTransport) -> list[bytes]:
    """Every message until the end."""
    found = []
    async with asyncio.timeout(30):
        while (message := await transport.receive()) is not None:
            found.append(message)
    return found
