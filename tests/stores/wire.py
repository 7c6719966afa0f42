"""A wire between a store and its Postgres that can be cut, at will or at a word."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Cut = Literal["before", "after"]


class Wire:
    """Forwards one TCP port to another. `cut_at(word, "before")` ends the connection in whose words from the client
    that one comes, undelivered; "after" delivers it and ends it before the server's answer.
    """

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._word: tuple[bytes, Cut] | None = None
        self._answered: threading.Event | None = None
        self._refusing = False
        self._flowing = threading.Event()
        self._flowing.set()
        self.cuts = 0
        self.taken = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut_at(self, word: bytes, when: Cut) -> None:
        self._word = (word, when)

    def cut(self) -> None:
        """End every connection."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def part(self) -> None:
        """End every connection and take no new one."""
        self.refuse()
        self.cut()

    def refuse(self) -> None:
        """Take no new connection."""
        self._refusing = True

    def mend(self) -> None:
        self._refusing = False
        self._flowing.set()

    def stall(self) -> None:
        """Keep every connection, and carry nothing on any."""
        self._flowing.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        self.cut()
        self._thread.join(30)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._refusing:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                for end in (near, far):  # small packets are not held back, as they are not without us
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {near, far}
                self.taken += 1
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                word = self._word
                if from_client and word is not None and word[0] in data:
                    self._word = None
                    self.cuts += 1
                    if word[1] == "after":
                        self._answered = threading.Event()
                        target.sendall(data)
                        self._answered.wait(0.3)  # in a pipeline there may be none yet
                        self._answered = None
                    break
                if not from_client and self._answered is not None:
                    self._answered.set()  # the answer has come, and is not passed on
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)


@contextmanager
def wire(to_port: int) -> Iterator[Wire]:
    found = Wire(to_port)
    try:
        yield found
    finally:
        found.close()
