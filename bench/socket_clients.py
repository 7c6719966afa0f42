"""Clients of WebSockets that cost little: frames are made by hand, and what comes is counted rather than read."""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

MASK = b"\x00\x00\x00\x00"
"""Masks nothing, so that a payload can be sent as it is; servers unmask it all the same."""
WITHIN_S = 30.0


def text(payload: bytes) -> bytes:
    """A masked text frame."""
    return _head(0x81, len(payload)) + MASK + payload


def close() -> bytes:
    """A masked close frame with 1000."""
    return _head(0x88, 2) + MASK + b"\x03\xe8"


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return struct.pack("!BB", first, 0x80 | size)
    if size < 1 << 16:
        return struct.pack("!BBH", first, 0x80 | 126, size)
    return struct.pack("!BBQ", first, 0x80 | 127, size)


def handshake(path: str, headers: Mapping[str, str]) -> bytes:
    """What asks for a socket."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: overnight.v1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


class Client:
    """One connection, in the manner of a thread that waits."""

    def __init__(self, port: int, path: str = "/", headers: Mapping[str, str] | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(handshake(path, headers or {}))
        self._rest = b""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError("no answer to the handshake")
            head += piece
        head, _, self._rest = head.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise ConnectionError(head.partition(b"\r\n")[0].decode("latin-1"))

    def send(self, payload: bytes) -> None:
        self.socket.sendall(text(payload))

    def message(self) -> bytes:
        """The next text, whole in one frame; what else comes is skipped. ConnectionError at the end."""
        while True:
            found = self._frame()
            if found is not None:
                return found

    def _frame(self) -> bytes | None:
        first, size = self._take(2)
        size &= 127
        if size == 126:
            size = struct.unpack("!H", self._take(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self._take(8))[0]
        payload = self._take(size)
        if first & 15 == 8:
            raise ConnectionError("closed")
        return payload if first & 15 == 1 else None

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = self.socket.recv(1 << 18)
            if not piece:
                raise ConnectionError("the connection has ended")
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def until(self, mark: bytes) -> int:
        """Read on until `mark` has come; how many bytes that took."""
        count, tail = len(self._rest), self._rest[-len(mark) :]
        if mark in self._rest:
            return count
        while piece := self.socket.recv(1 << 18):
            count += len(piece)
            if mark in tail + piece:
                return count
            tail = (tail + piece)[-len(mark) :]
        raise ConnectionError("the connection has ended")

    def leave(self) -> None:
        self.socket.close()


def echoes(port: int, *, clients: int, seconds: float, payload: bytes, at_once: int = 1) -> Sequence[float]:
    """Seconds that each of many rounds took; every client has one round under way, of `at_once` echoes."""
    found: list[float] = []
    waiting = {one.socket.fileno(): one for one in (Client(port) for _ in range(clients))}
    frames = text(payload) * at_once
    answer = (len(_head(0x81, len(payload))) + len(payload)) * at_once
    poll = select.epoll()
    sent, got = {}, dict.fromkeys(waiting, 0)
    for number, one in waiting.items():
        poll.register(number, select.EPOLLIN)
        sent[number] = time.perf_counter()
        one.socket.sendall(frames)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for number, _ in poll.poll(0.1):
            one = waiting[number]
            got[number] += len(one.socket.recv(65536))
            if got[number] >= answer:
                now = time.perf_counter()
                found.append(now - sent[number])
                got[number], sent[number] = 0, now
                one.socket.sendall(frames)
    poll.close()
    for one in waiting.values():
        one.leave()
    return found


def at_once(
    count: int, port: int, path: str, headers: Mapping[str, str], first: bytes | None
) -> list[Client]:
    """Many connections that stay quiet, each after its first message was answered."""

    def opened(_: int) -> Client:
        made = Client(port, path, headers)
        if first is not None:
            made.send(first)
            made.message()
        return made

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(opened, range(count)))
