"""Numbered messages to the agent's stdin: each written once, whoever sends it again."""

from __future__ import annotations

import os
from collections import deque
from typing import Literal

from overnight.keeper.connection import Refused

MAX_QUEUED = 64 * 1024 * 1024
"""Bytes waiting for an agent that does not read."""


class StdinFeed:
    """A queue in front of a pipe that is never waited for, so that a full pipe cannot deafen the keeper.

    `open` takes messages, `closing` still writes what is queued, `closed` is over (also when the agent closed it).
    """

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.last = 0
        """Number of the last message taken."""
        self.state: Literal["open", "closing", "closed"] = "open"
        self._queue: deque[memoryview] = deque()
        self._queued = 0

    @property
    def wants_write(self) -> bool:
        """Whether the pipe is worth watching for room."""
        return bool(self._queue)

    def take(self, number: int, data: bytes) -> None:
        """Queue message `number`. One that was taken before is silently left out.

        Raises Refused: `stdin_gap` unless it is the next one, `stdin_full`, `stdin_closed`.
        """
        if number <= self.last:
            return
        if number != self.last + 1:
            raise Refused("stdin_gap", f"the next message is {self.last + 1}, not {number}")
        if self.state != "open":
            raise Refused("stdin_closed", "stdin is closed")
        if self._queued + len(data) > MAX_QUEUED:
            raise Refused("stdin_full", f"{self._queued} bytes wait already")
        self.last = number
        self.append(data)

    def append(self, data: bytes) -> None:
        """Queue bytes behind everything taken so far, without a number."""
        if self.state == "open" and data:
            self._queue.append(memoryview(data))
            self._queued += len(data)
            self.flush()

    def close(self) -> None:
        """Close the pipe once everything queued has been written. Idempotent."""
        if self.state == "open":
            self.state = "closing"
            self.flush()

    def flush(self) -> None:
        """Write as much as the pipe takes at the moment."""
        try:
            while self._queue:
                written = os.write(self.pipe, self._queue[0])
                self._queued -= written
                self._queue[0] = self._queue[0][written:]
                if not self._queue[0]:
                    self._queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.shut()
        if self.state == "closing":
            self.shut()

    def shut(self) -> None:
        """Close the pipe now; what is still queued is lost, as it is when the agent ends."""
        if self.state != "closed":
            self.state = "closed"
            self._queue.clear()
            os.close(self.pipe)
