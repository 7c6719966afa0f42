"""One client's socket: lines in, lines out, never waiting for the client."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

from overnight.keeper_protocol import MAX_LINE, Refusal, encode

_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
MAX_UNSENT = 4 * 1024 * 1024
"""A client that lets this much pile up is cut off; it attaches again when it is awake."""


class Refused(Exception):
    """Something that a client asked for and does not get; `code` travels, the connection stays."""

    def __init__(self, code: Refusal, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.extra = extra

    def message(self, id: object) -> dict[str, object]:
        """The answer to send."""
        return {"type": "refused", "id": id, "code": self.code, "detail": self.detail, **self.extra}


class Connection:
    """A non-blocking unix socket that speaks the keeper protocol.

    `token` is None until the client has said hello with the right secret. `announced` is the last `grew` it was sent.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.handle = sock.fileno()
        """The descriptor's number, also after closing."""
        self.closed = False
        self.token: int | None = None
        self.announced: tuple[int, int, bool] = (0, 0, False)
        self.handles: list[int] = []
        """File descriptors that came along; whoever uses one closes it."""
        self._unread = bytearray()
        self._searched = 0
        self._unsent = bytearray()

    @property
    def wants_write(self) -> bool:
        """Whether something waits for room in the socket."""
        return bool(self._unsent)

    def receive(self) -> list[bytes]:
        """The whole lines that have arrived. Closes itself at the end of the stream or of our patience."""
        try:
            data, handles, _, _ = socket.recv_fds(self.sock, 1 << 20, 4, _CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            self.close()
            return []
        self.handles.extend(handles)
        self._unread += data
        if not data or len(self._unread) > MAX_LINE:
            self.close()
        return self._lines()

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message and write what the socket takes."""
        if self.closed:
            return
        self._unsent += encode(message)
        self.flush()
        if len(self._unsent) > MAX_UNSENT:
            self.close()

    def flush(self) -> None:
        """Write what the socket takes."""
        try:
            while self._unsent and not self.closed:
                del self._unsent[: self.sock.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()

    def finish(self, timeout_s: float) -> None:
        """Write what is left, waiting for the client at most so long; then let go."""
        try:
            self.sock.settimeout(timeout_s)
            self.sock.sendall(self._unsent)
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Let go. Idempotent."""
        if not self.closed:
            self.closed = True
            self.sock.close()
            for handle in self.handles:
                os.close(handle)
            self.handles.clear()

    def _lines(self) -> list[bytes]:
        found: list[bytes] = []
        start = 0
        while (end := self._unread.find(b"\n", max(start, self._searched))) >= 0:
            found.append(bytes(self._unread[start:end]))
            start = end + 1
        del self._unread[:start]
        self._searched = len(self._unread)
        return found


def is_own_user(sock: socket.socket) -> bool:
    """Whether the peer is the same user, or root. The folder's mode says so too; this does not rely on it."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, 12))
    return uid in (os.geteuid(), 0)


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, mode 0600, in place of a stale one; the path may be longer than a socket name."""
    folder, name = os.path.split(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o177)
    fresh = f"{name}.{os.getpid()}"
    try:
        sock.bind(_bindable(handle, folder, fresh))
        sock.listen(128)
        os.rename(fresh, name, src_dir_fd=handle, dst_dir_fd=handle)
    finally:
        os.umask(before)
        os.close(handle)
    return sock


def _bindable(handle: int, folder: str, name: str) -> str:
    """A socket address holds about 100 bytes; through a descriptor of its folder, the name alone counts."""
    plain = f"{folder}/{name}"
    return plain if len(os.fsencode(plain)) < 100 else f"/proc/self/fd/{handle}/{name}"
