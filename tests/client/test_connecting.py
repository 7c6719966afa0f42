"""A server that resets a connection as it is made: uvloop has forgotten the socket before anybody can look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from anyio._backends._asyncio import SocketStream

from overnight.client import Client
from overnight.client.connecting import connecting
from overnight.errors import Unreachable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def url(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Of something that listens; whoever connects finds no socket behind the connection."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    def lost(stream: SocketStream) -> None:
        stream._transport.abort()

    monkeypatch.setattr(SocketStream, "_raw_socket", property(lost))
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_it_is_a_server_that_cannot_be_reached(url: str) -> None:
    async with Client(url, "token") as client:
        with pytest.raises(Unreachable):
            await client.workers()


async def test_another_mistake_is_not_hidden() -> None:
    with pytest.raises(AttributeError), connecting():
        raise AttributeError("getpeername", name="getpeername", obj=httpx2)
