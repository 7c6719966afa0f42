"""Ports for servers that are ended and started again on the same one: nobody else takes them in between."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Final

FIRST: Final = 20_000
_FEWEST: Final = 1000
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_held: Final[list[int]] = []
"""Descriptors of the names that keep our ports ours; they go with this process."""


def free_port() -> int:
    """A loopback port that nobody listens on, and that no other process is given here while this one lives.

    It lies below those that the kernel hands out by itself: otherwise, while its server is down, any connection of
    anybody could be made from it, and the server could not come back.
    """
    last = _first_of_the_kernel()
    while last - FIRST >= _FEWEST:
        port = FIRST + secrets.randbelow(last - FIRST)
        if _is_free(port) and _take(port):
            return port
    return _any()


def _first_of_the_kernel() -> int:
    try:
        return int(_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _take(port: int) -> bool:
    """Names of abstract sockets are unique on the machine, and leave nothing behind."""
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0taken-by-a-test:{port}")
        except OSError:
            return False
        _held.append(os.dup(name.fileno()))
    return True


def _any() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
