"""JSON-RPC in both directions over one transport: requests are answered beside each other, notifications in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any, Final, Protocol

import structlog

from overnight.errors import OvernightError

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
FAILED: Final = -32010
"""Ours; -32000 would ask the client for a login."""
NOT_FOUND: Final = -32002

log = structlog.get_logger(__name__)


class Refusal(Exception):
    """An answer that says why there is no result: ours to the peer, or the peer's to us."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Gone(Exception):
    """The peer has closed its end; what it was asked will not be answered."""


class Wire(Protocol):
    """One JSON object in, one out."""

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None once the peer has closed its end."""
        ...

    async def send(self, message: dict[str, Any]) -> None:
        """Write one message whole. Raises OSError once nobody reads any more."""
        ...


class Served(Protocol):
    """Who answers the peer."""

    async def request(self, method: str, params: Mapping[str, Any]) -> Mapping[str, object]:
        """The result of a request. Raises Refusal, or any OvernightError."""
        ...

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """The peer said something that wants no answer. At once, and never raises."""
        ...


class Peer:
    """The other end. `serve` runs until it has closed; the other calls may come from any task meanwhile."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def serve(self, served: Served) -> None:
        """Answer until the peer has closed its end; then nothing that was begun goes on."""
        try:
            while (message := await self._wire.receive()) is not None:
                self._take(message, served)
                # A request has begun before what was sent after it is heard: a cancel right behind a prompt meets it.
                await asyncio.sleep(0)
        finally:
            await self._end()

    async def request(self, method: str, params: Mapping[str, object]) -> Any:
        """The peer's result. Raises Refusal when it refuses, Gone when it has left."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            return await answer
        finally:
            self._asked.pop(number, None)

    async def notify(self, method: str, params: Mapping[str, object]) -> None:
        """Say something without waiting for an answer. Raises Gone when the peer has left."""
        await self._send({"jsonrpc": "2.0", "method": method, "params": params})

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            await self._wire.send(message)
        except OSError:
            raise Gone from None

    def _take(self, message: dict[str, Any], served: Served) -> None:
        method = message.get("method")
        if method is None:
            self._answered(message)
        elif "id" in message:
            answering = asyncio.create_task(self._answer(message, served), name=f"answer {method}")
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)
        else:
            served.notified(method, _params(message))

    def _answered(self, message: Mapping[str, Any]) -> None:
        answer = self._asked.get(message["id"])
        if answer is None or answer.done():
            return
        error = message.get("error")
        if error is None:
            answer.set_result(message.get("result"))
        else:
            answer.set_exception(Refusal(error["code"], str(error.get("message", "")), error.get("data")))

    async def _answer(self, message: Mapping[str, Any], served: Served) -> None:
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            said["result"] = await served.request(message["method"], _params(message))
        except Refusal as refusal:
            said["error"] = {"code": refusal.code, "message": refusal.message, "data": refusal.data}
        except OvernightError as error:
            data = {"code": error.code, "mend": error.mend}
            said["error"] = {"code": FAILED, "message": error.detail, "data": data}
        except Gone:
            return
        except Exception:
            log.exception("agent.request_failed", method=message["method"])
            said["error"] = {"code": INTERNAL_ERROR, "message": "the agent has a fault; its log says more"}
        try:
            await self._send(said)
        except Gone:
            log.info("agent.answer_unheard", method=message["method"])

    async def _end(self) -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(Gone())
        for task in tuple(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


def _params(message: Mapping[str, Any]) -> Mapping[str, Any]:
    params = message.get("params")
    return params if isinstance(params, dict) else {}
