"""Moving a connection's messages over one transport, until that ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import structlog

from overnight.client.socket.terms import Transport
from overnight.client.socket.waiting import Room
from overnight.errors import OvernightError
from overnight.wire.socket.connection import Connection
from overnight.wire.socket.events import Closing, Event

log = structlog.get_logger(__name__)
_SLICE: Final = 64 * 1024
"""Bytes of the scopes' messages that are taken at once, so that the control lane never waits long."""
_LEAST_TICK_S: Final = 0.01


class Carrying:
    """Reads, writes and keeps the time for one transport. `wake` says that there may be something to send."""

    def __init__(
        self, connection: Connection, transport: Transport, room: Room, *, clock: Callable[[], int],
        dispatch: Callable[[list[Event]], None],
    ) -> None:  # fmt: skip
        self.closing: Closing | None = None
        """Why to close; what is queued before is sent yet."""
        self._connection = connection
        self._transport = transport
        self._room = room
        self._clock = clock
        self._dispatch = dispatch
        self._wake = asyncio.Event()
        self._sent: asyncio.Event | None = None
        """There while the reader waits for what is queued to be sent; an idle connection has none."""
        self._ticker: asyncio.Handle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._aborted = False

    def wake(self) -> None:
        """There may be something to send, or a reason to stop."""
        self._wake.set()

    def close(self, closing: Closing) -> None:
        """Send what is queued, then stop. The first reason counts."""
        self.closing = self.closing or closing
        self._wake.set()

    def abort(self) -> None:
        """Stop at once, as if the transport had broken, even when it takes nothing any more."""
        if self._task is not None and not self._aborted:
            self._aborted = True
            self._task.cancel()

    async def run(self) -> None:
        """Until the transport ends or there is a reason to close it."""
        reader = asyncio.create_task(self._read())
        self._task = task = asyncio.current_task()
        self._tick()
        try:
            await self._until_over(reader)
        except asyncio.CancelledError:
            if task is None or not self._aborted or task.uncancel() > 0:
                raise
        if reader.done() and not reader.cancelled() and (fault := reader.exception()) is not None:
            log.error("socket.broken", error=repr(fault), exc_info=fault)

    async def _until_over(self, reader: asyncio.Task[None]) -> None:
        try:
            await self._write(reader)
        finally:
            self._task = None
            if self._ticker is not None:
                self._ticker.cancel()
            reader.cancel()
            await asyncio.wait([reader])

    async def shut(self) -> None:
        """Close the transport."""
        closing = self.closing or Closing(code=1000, reason="")
        with contextlib.suppress(OvernightError, OSError):
            await self._transport.close(closing.code, closing.reason)

    async def _read(self) -> None:
        try:
            while (data := await self._transport.receive()) is not None:
                self._dispatch(self._connection.receive(data, self._clock()))
                self._wake.set()
                while self._connection.congested:
                    self._sent = asyncio.Event()
                    await self._sent.wait()
        except (OvernightError, OSError) as error:
            log.debug("socket.receive_failed", error=str(error))
        finally:
            self._wake.set()

    async def _write(self, reader: asyncio.Task[None]) -> None:
        while True:
            self._wake.clear()
            ending = self.closing is not None or reader.done()
            if not await self._flush() or ending:
                return
            await self._wake.wait()

    async def _flush(self) -> bool:
        """Send what may be sent; False when the transport is over."""
        try:
            while messages := self._connection.data_to_send(_SLICE):
                for message in messages:
                    await self._transport.send(message)
                if self._sent is not None:
                    self._sent.set()
                self._room.look(self._connection.room)
        except (OvernightError, OSError) as error:
            log.debug("socket.send_failed", error=str(error))
            return False
        return True

    def _tick(self) -> None:
        now = self._clock()
        self._dispatch(self._connection.tick(now))
        self._wake.set()
        delay = max((self._connection.deadline(now) - now) / 1000, _LEAST_TICK_S)
        self._ticker = asyncio.get_running_loop().call_later(delay, self._tick)
