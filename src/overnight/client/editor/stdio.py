"""The protocol's messages over standard input and output: one JSON document a line.

Whatever an editor sends, the process lives on: what is no message is answered with an error of JSON-RPC here, before
the library sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

MAX_LINE: Final = 32 * 1024 * 1024
"""Bytes of one message; a longer line is skipped and answered with an error."""
_NOTIFICATIONS: Final = frozenset({"session/cancel"})
_PARSE, _INVALID, _INTERNAL = -32700, -32600, -32603


class Stdio:
    """A transport for the library's connection. `say` hears, in words, what was skipped."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, say: Callable[[str], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._say = say
        self._sending = asyncio.Lock()
        self._permissions: dict[tuple[str, str], object] = {}
        """(session, tool call) → id of the permission request that is open."""

    async def receive(self) -> dict[str, Any] | None:
        """The next message that makes sense; None once the editor has closed its end."""
        while True:
            line = await self._line()
            if line is None:
                return None
            if line.strip():
                message = await self._checked(line)
                if message is not None:
                    return message

    async def send(self, message: dict[str, Any]) -> None:
        """Write one message whole. Raises OSError once nobody reads any more."""
        self._remember(message)
        line = orjson.dumps(message, default=str, option=orjson.OPT_NON_STR_KEYS) + b"\n"
        async with self._sending:
            self._writer.write(line)
            await self._writer.drain()

    async def close(self) -> None:
        """Nothing to let go of: the streams are the process's own."""

    async def withdraw(self, session_id: str, tool_call: str) -> None:
        """Tell the editor that the permission request for that tool call has become pointless."""
        request = self._permissions.pop((session_id, tool_call), None)
        if request is not None:
            params = {"requestId": request}
            await self.send({"jsonrpc": "2.0", "method": "$/cancel_request", "params": params})

    async def _line(self) -> bytes | None:
        too_long = False
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                return end.partial or None
            except asyncio.LimitOverrunError as over:
                await self._reader.readexactly(over.consumed)
                too_long = True
            else:
                if not too_long:
                    return line
                await self._refuse(_INVALID, f"a message has at most {MAX_LINE} bytes", None)
                too_long = False

    async def _checked(self, line: bytes) -> dict[str, Any] | None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            await self._refuse(_PARSE, f"not JSON: {error}", None)
            return None
        if not isinstance(message, dict):
            await self._refuse(_INVALID, "a message is one JSON object", None)
            return None
        return await self._request(message) if "method" in message else self._response(message)

    async def _request(self, message: dict[str, Any]) -> dict[str, Any] | None:
        id, method = message.get("id"), message["method"]
        if "id" in message and not _is_id(id):
            await self._refuse(_INVALID, "an id is a string or a whole number", None)
        elif not isinstance(method, str):
            await self._refuse(_INVALID, "a method is a string", id)
        elif "id" not in message and method not in _NOTIFICATIONS:
            self._say(f"notification {method[:80]!r} was passed over")
        else:
            return message
        return None

    def _response(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if not _is_id(message.get("id")):
            self._say("an answer without a request was passed over")
            return None
        self._permissions = {
            key: request for key, request in self._permissions.items() if request != message["id"]
        }
        error = message.get("error")
        if error is not None and not (isinstance(error, dict) and isinstance(error.get("code"), int)):
            message["error"] = {"code": _INTERNAL, "message": str(error)[:500]}
        return message

    async def _refuse(self, code: int, words: str, id: object) -> None:
        self._say(words)
        await self.send({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": words}})

    def _remember(self, message: Mapping[str, Any]) -> None:
        if message.get("method") == "session/request_permission":
            params = message["params"]
            self._permissions[params["sessionId"], params["toolCall"]["toolCallId"]] = message["id"]


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
