"""Keeps tools on offer at a server: over cuts of the connection and restarts of the server, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

import structlog

from overnight.client.socket.connector import Backoff, Connector, Where
from overnight.client.socket.link import Link, Nacked
from overnight.client.socket.target import Target
from overnight.client.socket.tools import Tool, ToolHost
from overnight.errors import Disconnected, InvalidInput, NoReply
from overnight.wire.socket.envelope import CONN

AGAIN_S: Final = 2.0
"""After so long a name that another host has is asked for again: that host may be one of ours that was cut off."""
END_S: Final = 5.0
"""What is said at the end is heard within this, or not at all."""
log = structlog.get_logger(__name__)


class Watch:
    """Is told what becomes of the offer; a base for those who want to know."""

    def offered(self, names: tuple[str, ...]) -> None:
        """The server has these now, and none besides."""

    def refused(self, name: str, why: str) -> None:
        """It does not take this one."""

    def lost(self) -> None:
        """The connection has ended."""


class Hosting:
    """Offers `tools`, a table that may change: say so with `changed`.

    A first offer that is refused ends `run` with the refusal, and later ones are made again until they are taken. With
    `tolerant` those tools are left out that are refused.
    """

    def __init__(
        self, where: Target | Where, tools: Mapping[str, Tool], *,
        watch: Watch | None = None, tolerant: bool = False, backoff: Backoff | None = None,
    ) -> None:  # fmt: skip
        self._tools = tools
        self._host = ToolHost(tools)
        self._watch = watch or Watch()
        self._tolerant = tolerant
        self._link = Link("client", handlers=self._host.handlers())
        self._connector = Connector(
            self._link, where, backoff=backoff or Backoff(first_s=0.5, most_s=15.0), beside=self._keep
        )
        self._names: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._refused = asyncio.Event()
        self._refusal: Nacked | None = None

    async def run(self) -> None:
        """Until `close`. Raises Unauthorized and the like, and Nacked when the first offer is refused."""
        running = asyncio.create_task(self._connector.run(), name="connection of a tool host")
        refused = asyncio.create_task(self._refused.wait(), name="wait for a refusal")
        try:
            await asyncio.wait({running, refused}, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                await self._connector.close()
            await running
        finally:
            for task in (running, refused):
                task.cancel()
            await asyncio.gather(running, refused, return_exceptions=True)
        if self._refusal is not None:
            raise self._refusal

    def changed(self) -> None:
        """The table is another one now: offer what is new, and no more what is gone."""
        self._changed.set()

    async def close(self) -> None:
        """Offer nothing any more, cancel what is under way, and end; idempotent."""
        if self._names and self._link.connection.state == "open":
            try:
                await self._link.request(
                    CONN, "tool.unregister", {"names": sorted(self._names)}, timeout_s=END_S
                )
            except (Disconnected, NoReply, Nacked) as error:
                log.info("tools.not_unregistered", code=error.code)
            self._names = frozenset()
        try:
            async with asyncio.timeout(END_S):
                await self._host.close("its host has ended")
        except TimeoutError:
            log.warning("tools.not_ended", why="a tool goes on although it was cancelled")
        await self._connector.close()

    async def _keep(self) -> None:
        """For one connection, from its greeting on: a server that was restarted knows nothing of us."""
        try:
            while True:
                self._changed.clear()
                wait = None if await self._offer() else AGAIN_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
        finally:
            self._watch.lost()

    async def _offer(self) -> bool:
        """Offer everything. False: it is to be tried again."""
        names = frozenset(self._tools)
        try:
            if gone := self._names - names:
                await self._link.request(CONN, "tool.unregister", {"names": sorted(gone)})
            await self._host.offer(self._link)
        except (NoReply, Nacked) as error:
            if isinstance(error, Nacked) and self._tolerant:
                return await self._offer_each()
            if isinstance(error, Nacked) and not self._names:
                self._refusal = error
                self._refused.set()
            log.warning("tools.not_offered", code=error.code, why=error.detail)
            return False
        self._names = names
        self._watch.offered(tuple(sorted(names)))
        return True

    async def _offer_each(self) -> bool:
        """One by one: what others have written may not be spoilt by the one of them that is refused."""
        taken = set()
        again = False
        for name in sorted(self._tools):
            try:
                await ToolHost({name: self._tools[name]}).offer(self._link)
                taken.add(name)
            except (KeyError, NoReply):
                again = True
            except Nacked as error:
                again |= error.code != InvalidInput.code
                self._watch.refused(name, error.detail)
        self._names = frozenset(taken)
        self._watch.offered(tuple(sorted(taken)))
        return not again
