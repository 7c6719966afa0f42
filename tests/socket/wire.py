"""A wire between a client and a server that a test can cut, or keep from being read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from tests.socket.raw import Peer, server


@dataclass
class Wire:
    """`budgets`: how many bytes of the server's pass before each cut, connection by connection; then it holds."""

    port: int
    budgets: Iterator[int]
    url: str = ""
    connections: list[Peer] = field(default_factory=list)
    passed: int = 0

    async def carry(self, peer: Peer) -> None:
        self.connections.append(peer)
        budget = next(self.budgets, None)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        there = asyncio.create_task(_pump(peer.reader, writer))
        try:
            await self._back(reader, peer, budget)
        finally:
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
            writer.transport.abort()
            writer.close()
            peer.leave()

    async def _back(self, reader: asyncio.StreamReader, peer: Peer, budget: int | None) -> None:
        with contextlib.suppress(ConnectionError):
            while (budget is None or budget > 0) and (piece := await reader.read(budget or 65536)):
                self.passed += len(piece)
                budget = None if budget is None else budget - len(piece)
                peer.writer.write(piece)
                await peer.writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def wire(port: int, *budgets: int) -> AsyncIterator[Wire]:
    """A wire to the server at `port`."""
    made = Wire(port, iter(budgets))
    async with server(made.carry, shake=False) as made.url:
        yield made
