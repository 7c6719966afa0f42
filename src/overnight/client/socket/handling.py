"""Handlers at work: each call a task, and every request answered exactly once whatever the handler does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

from overnight.client.socket.terms import Handler
from overnight.errors import Disconnected, OvernightError
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.events import Received

if TYPE_CHECKING:
    from overnight.client.socket.link import Link

log = structlog.get_logger(__name__)


class Handling:
    """The handlers of a link that run."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tasks: dict[asyncio.Task[None], str] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, handler: Handler, received: Received) -> None:
        """Call the handler, in a task of its own."""
        task = asyncio.get_running_loop().create_task(self._handle(handler, received))
        self._tasks[task] = received.envelope.scope
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)

    @property
    def here(self) -> bool:
        """Whether this is called from a handler."""
        return asyncio.current_task() in self._tasks

    def cancel(self, scope: str | None = None) -> None:
        """Stop the handlers of the scope, or all; but never the one that calls this."""
        for task, of in list(self._tasks.items()):
            if scope in (None, of) and task is not asyncio.current_task():
                task.cancel()

    async def finished(self) -> None:
        """Wait until none runs beside the one that calls this."""
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        if others:
            await asyncio.wait(others)

    async def _handle(self, handler: Handler, received: Received) -> None:
        envelope, link = received.envelope, self._link
        try:
            await handler(link, envelope)
        except OvernightError as error:
            self._failed(envelope, error)
        except asyncio.CancelledError:
            self._failed(envelope, Disconnected("the scope was cut off"))
            raise
        except Exception:  # a fault of one handler must not end the connection of all
            log.exception("socket.handler_failed", type=envelope.type, scope=envelope.scope)
            self._failed(envelope, OvernightError())
        else:
            if received.message.role == "request" and not link.connection.answered(envelope.id):
                self._reply(envelope, "ack", {})
        finally:
            if received.message.spends:
                link.consumed(envelope.scope)

    def _failed(self, envelope: Envelope, error: OvernightError) -> None:
        """Say it by a nack where a reply is due, by the scope's terminal where it is not."""
        if not self._link.connection.answered(envelope.id):
            told = {"code": error.code, "message": error.detail, "mend": error.mend, "extra": error.extra}
            self._reply(envelope, "nack", {**told, "rejected": envelope.type})
        elif self._link.connection.catalog[envelope.type].opens:
            self._link.fail(envelope.scope, error)

    def _reply(self, envelope: Envelope, type_: str, payload: Mapping[str, Any]) -> None:
        with contextlib.suppress(OvernightError):
            self._link.post(envelope.scope, type_, payload, reply_to=envelope.id)
