"""Many readers of streams in one process, cheap enough that the server is what is measured."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PIECE = 1 << 18
LINES_OF_A_FRAME = 3


@dataclass(slots=True, kw_only=True)
class Count:
    """What arrived: frames of all readers, from the first byte after the heads to the last."""

    frames: int
    seconds: float
    bytes: int

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


class Readers:
    """`number` open streams of one address. Nothing is parsed: frames have three lines, and lines are counted."""

    def __init__(self, number: int, port: int, path: str, headers: Mapping[str, str] | None = None) -> None:
        words = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{words}\r\n".encode()
        self._sockets: list[socket.socket] = []
        for _ in range(number):
            made = socket.create_connection(("127.0.0.1", port))
            made.sendall(request)
            self._sockets.append(made)

    def heads(self) -> None:
        """Wait until each has its headers and first bytes, and leave those out of what is counted."""
        for one in self._sockets:
            seen = b""
            while b"\r\n\r\n" not in seen:
                piece = one.recv(4096)
                if not piece:
                    raise ConnectionError(seen.decode("utf-8", "replace"))
                seen += piece
            if b" 200 " not in seen[:20]:
                raise ConnectionError(seen.decode("utf-8", "replace"))

    def count(self, *, most_s: float, quiet_s: float = 2.0) -> Count:
        """Read until every stream has ended, nothing comes for `quiet_s`, or `most_s` is over."""
        with selectors.DefaultSelector() as selector:
            for one in self._sockets:
                one.setblocking(False)
                selector.register(one, selectors.EVENT_READ)
            return _count(selector, time.perf_counter() + most_s, quiet_s)

    def close(self) -> None:
        """Leave."""
        for one in self._sockets:
            one.close()


def _count(selector: selectors.BaseSelector, until: float, quiet_s: float) -> Count:
    lines = size = 0
    begun = last = 0.0
    buffer = memoryview(bytearray(PIECE))
    while selector.get_map() and time.perf_counter() < until:
        ready: Sequence[tuple[selectors.SelectorKey, int]] = selector.select(quiet_s)
        if not ready and begun:
            break
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            with contextlib.suppress(BlockingIOError):
                got = key.fileobj.recv_into(buffer)
                if not got:
                    selector.unregister(key.fileobj)
                    continue
                # Chunk heads have line ends of their own, with a carriage return before them.
                data = bytes(buffer[:got])
                lines += data.count(b"\n") - data.count(b"\r")
                size += got
                last = time.perf_counter()
                begun = begun or last
    return Count(frames=lines // LINES_OF_A_FRAME, seconds=max(last - begun, 1e-9), bytes=size)
