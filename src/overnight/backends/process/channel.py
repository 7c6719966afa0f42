"""A connection that speaks the keeper protocol: numbered requests, their answers, and what comes unasked."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from overnight.errors import KeeperGone
from overnight.keeper_protocol import MAX_LINE, decode, encode

CONNECT_WITHIN_S = 5.0
_BACKLOG_PAUSE_S = 0.005

Message = dict[str, Any]


class Refused(KeeperGone):
    """A keeper or spawner said no; `reason` is the code of the protocol."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        super().__init__(str(message.get("detail", "")))
        self.reason: str = message["code"]


class Channel:
    """One connected socket. Requests may be made at once by many tasks; answers come in the order of requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Message]] = {}

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """Take over a connected socket."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE))

    async def first(self, within_s: float) -> Message:
        """The first message of the peer. Raises Refused, KeeperGone at the end of the stream, TimeoutError."""
        async with asyncio.timeout(within_s):
            try:
                message = decode(await self._reader.readuntil(b"\n"))
            except (asyncio.IncompleteReadError, OSError, ValueError) as error:
                raise KeeperGone("the connection ended before an answer") from error
        if message["type"] == "refused":
            raise Refused(message)
        return message

    def write(self, message: Mapping[str, object]) -> None:
        """Send without waiting for an answer."""
        self._writer.write(encode(message))

    async def ask(self, kind: str, **fields: object) -> Message:
        """Send a request and wait for its answer. Raises Refused, or KeeperGone when the connection ends first."""
        self._last = id = self._last + 1
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[id] = answer
        try:
            if self._writer.is_closing():
                raise KeeperGone("the connection is closed")
            self.write({"type": kind, "id": id, **fields})
            await self._writer.drain()
            message = await answer
        except OSError as error:
            raise KeeperGone("the connection broke") from error
        finally:
            self._waiting.pop(id, None)
        if message["type"] == "refused":
            raise Refused(message)
        return message

    async def listen(self, unasked: Callable[[Message], None]) -> None:
        """Hand out what arrives until the connection ends; then whoever waits for an answer gets KeeperGone."""
        try:
            while True:
                self._hand_out(decode(await self._reader.readuntil(b"\n")), unasked)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            return
        finally:
            self.close()

    def close(self) -> None:
        """Let go. Idempotent."""
        self._writer.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(KeeperGone("the connection ended before an answer"))
        self._waiting.clear()

    def _hand_out(self, message: Message, unasked: Callable[[Message], None]) -> None:
        waiting = self._waiting.get(message["id"]) if isinstance(message.get("id"), int) else None
        if waiting is None:
            unasked(message)
        elif not waiting.done():
            waiting.set_result(message)


async def connect(path: str) -> socket.socket:
    """A connected, non-blocking socket; the path may be longer than a socket name.

    Raises FileNotFoundError or ConnectionRefusedError when nobody listens, TimeoutError when nobody accepts.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + CONNECT_WITHIN_S
    while True:
        try:
            return _connect_now(path)
        except BlockingIOError:
            if loop.time() > until:
                raise TimeoutError(f"{path} does not accept connections") from None
            await asyncio.sleep(_BACKLOG_PAUSE_S)


def _connect_now(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        if len(os.fsencode(path)) < 100:
            sock.connect(path)
        else:
            _connect_through_folder(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_through_folder(sock: socket.socket, path: str) -> None:
    folder, name = os.path.split(path)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{handle}/{name}")
    finally:
        os.close(handle)


def peer_pid(sock: socket.socket) -> int | None:
    """The process at the other end; None where the system does not tell, or it is in a namespace we cannot see."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, 12))[0]
    return pid or None
