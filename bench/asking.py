"""A client that costs next to nothing: requests over one connection, made and read as bytes."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

import orjson


class Asker:
    """One kept connection. One request at a time."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._head = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._host = f"127.0.0.1:{port}"
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: object) -> bytes:
        """The body of a 200 or 202 answer."""
        data = orjson.dumps(body)
        self._send("POST", path, f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n", data)
        head, rest = self._until(b"\r\n\r\n")
        if head[:12] not in {b"HTTP/1.1 200", b"HTTP/1.1 202"}:
            raise RuntimeError((head + rest).decode("utf-8", "replace"))
        at = head.lower().index(b"content-length:") + 15
        left = int(head[at : head.index(b"\r\n", at)]) - len(rest)
        while left > 0:
            piece = self._socket.recv(65536)
            rest, left = rest + piece, left - len(piece)
        return rest

    def first_of(self, path: str, *needles: bytes) -> list[float]:
        """Follow a stream on this connection, which it uses up: when (`perf_counter`) each needle was first seen."""
        self._send("GET", path, "")
        found: dict[bytes, float] = {}
        seen = b""
        while len(found) < len(needles):
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError(f"the stream ended: {seen!r}")
            now, seen = time.perf_counter(), seen + piece
            for needle in needles:
                if needle not in found and needle in seen:
                    found[needle] = now
        self.close()
        return [found[needle] for needle in needles]

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _send(self, method: str, path: str, more: str, data: bytes = b"") -> None:
        self._socket.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{self._head}{more}\r\n".encode() + data
        )

    def _until(self, mark: bytes) -> tuple[bytes, bytes]:
        seen = b""
        while mark not in seen:
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError("the connection ended")
            seen += piece
        head, _, rest = seen.partition(mark)
        return head + b"\r\n", rest
