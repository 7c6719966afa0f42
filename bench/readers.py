"""Many readers of streams in one process, cheap enough that the server is what is measured."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PIECE = 1 << 18
LINES_OF_A_FRAME = 3
STAMP = re.compile(rb'"text":"(\d{19}) ')


@dataclass(slots=True, kw_only=True)
class Count:
    """What arrived: frames of all readers, from the beginning (by default the first byte behind the heads) on."""

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
        words += "Connection: close\r\n"
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

    def count(self, *, most_s: float, quiet_s: float = 2.0, since: float = 0.0) -> Count:
        """Read until every stream has ended, nothing comes for `quiet_s`, or `most_s` is over.

        The time counts from `since` (of `perf_counter`), or from the first bytes.
        """
        with selectors.DefaultSelector() as selector:
            for one in self._sockets:
                one.setblocking(False)
                selector.register(one, selectors.EVENT_READ)
            return _count(selector, time.perf_counter() + most_s, quiet_s, since)

    def lateness(self) -> list[float]:
        """Seconds between the time that each message of `flood_agent` carries and its arrival at the first reader."""
        return lateness(self._sockets[0].recv)

    def close(self) -> None:
        """Leave."""
        for one in self._sockets:
            one.close()


def lateness(read: Callable[[int], bytes]) -> list[float]:
    """The same for whatever can be read, to its end; a message may be cut anywhere."""
    found: list[float] = []
    rest = b""
    while piece := read(PIECE):
        now = time.time_ns()
        data = rest + piece
        end = 0
        for stamp in STAMP.finditer(data):
            found.append((now - int(stamp[1])) / 1e9)
            end = stamp.end()
        rest = data[max(end, len(data) - 64) :]
    return found


def _count(selector: selectors.BaseSelector, until: float, quiet_s: float, since: float) -> Count:
    lines = size = 0
    begun, last = since, 0.0
    buffer = memoryview(bytearray(PIECE))
    while selector.get_map() and time.perf_counter() < until:
        ready: Sequence[tuple[selectors.SelectorKey, int]] = selector.select(quiet_s)
        if not ready and last:
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
