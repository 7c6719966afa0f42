"""Connections that do not wait for ever: a server that has fallen silent is given up."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg

T = TypeVar("T")
MARGIN_S: Final = 5.0
"""How much longer than the server's own limit for a statement an answer may take."""
_LOOKS_S: Final = 0.25
LEAVES_S: Final = 2.0
"""How long whoever closes the store waits for an answer that has not come."""


class Watched(psycopg.Connection[Any]):
    """A connection that shows since when it has waited for the server, and what it was promised."""

    answers_within: float | None = None
    """Seconds after which the server itself would have ended the statement; None where it has no limit."""
    waiting_since: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """The library's own, through which it waits for every answer."""
        self.waiting_since = time.monotonic()
        try:
            return super().wait(gen, interval, timeout)
        finally:
            self.waiting_since = None

    def cut(self) -> None:
        """From another thread: whoever waits gets the library's error of a lost connection."""
        cut(self)


def cut(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Whoever waits for an answer gets the library's error of a lost connection."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


class Watch:
    """Looks after connections on a thread of its own, from `start` to `stop`."""

    def __init__(self) -> None:
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._leaving = False
        self._thread: threading.Thread | None = None

    def add(self, connection: Watched) -> None:
        """One more."""
        with self._changing:
            self._watched.add(connection)

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._look, name="overnight-watch", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """From now on nobody waits longer than `LEAVES_S`."""
        self._leaving = True

    def stop(self) -> None:
        """Look no more; idempotent."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOKS_S):
            now = time.monotonic()
            with self._changing:  # a set must not grow while it is gone through
                watched = list(self._watched)
            for connection in watched:
                if self._is_silent(connection, now):
                    connection.cut()

    def _is_silent(self, connection: Watched, now: float) -> bool:
        since, limit = connection.waiting_since, connection.answers_within
        if since is None:
            return False
        if self._leaving:
            return now - since > LEAVES_S
        return limit is not None and now - since > limit + MARGIN_S
