"""What waits to be sent to other processes: bounded, and honest about what it let go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from overnight.ports.notifier import STREAM, Notice
from overnight.stores.relay.figures import Figures

MOST_NOTICES: Final = 8192
MOST_BYTES: Final = 8 * 1024 * 1024
MOST_OWED: Final = 4096
"""Topics remembered for a later "look again"; above it everybody is told to look at everything."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """What goes out together. Who cannot send it gives it back with `Outbox.failed`."""

    notices: list[Notice]
    owed: set[str] = field(default_factory=set)
    """Topics of which something was not sent: their listeners must look again."""
    owes_all: bool = False
    """So many were lost that every listener must look again."""


class Outbox:
    """Notices on their way out. While it is shut nothing waits in it: only the topics are remembered, and owed.

    What was lost is counted. Lost deltas of streams are not owed: there is nothing to find again.
    """

    def __init__(
        self, figures: Figures, *, most_notices: int = MOST_NOTICES, most_bytes: int = MOST_BYTES
    ) -> None:
        self._figures = figures
        self._most_notices = most_notices
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[Notice, int]] = deque()
        self._bytes = 0
        self._owed: set[str] = set()
        self._owes_all = False
        self._is_open = False
        self._is_nudged = False
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._waiting or self._owed or self._owes_all or self._is_nudged)

    def put(self, notices: Sequence[Notice]) -> None:
        """Take in; when that is too much, the oldest go."""
        if not self._is_open:
            self._lost("dropped", notices)
            return
        for notice in notices:
            size = sum(len(event.body) for event in notice.events) + len(notice.delta or b"") + 100
            self._waiting.append((notice, size))
            self._bytes += size
        while len(self._waiting) > self._most_notices or self._bytes > self._most_bytes:
            self._lost("dropped", [self._pop()])
        self._woken.set()

    def failed(self, batch: Batch) -> None:
        """It could not be sent, or nobody knows whether it was."""
        self._lost("failed", batch.notices)
        self.owe(batch.owed)
        self._owes_all |= batch.owes_all

    def refused(self, batch: Batch, topics: Collection[str], *, wakes: bool) -> None:
        """The carrier did not take what it was told of `topics`, nor any wake-up where `wakes`."""
        failed = [
            notice
            for notice in batch.notices
            if notice.topic in topics or (wakes and not (notice.events and notice.topic.startswith(STREAM)))
        ]
        self._figures.add("published", len(batch.notices) - len(failed))
        self._lost("failed", failed)
        if wakes:
            self.owe(batch.owed)
            self._owes_all |= batch.owes_all

    def nudge(self) -> None:
        """Have `take` come back with an empty batch."""
        self._is_nudged = True
        self._woken.set()

    def owe(self, topics: Iterable[str]) -> None:
        """Have the listeners of `topics` told to look again."""
        self._owed.update(topics)
        self._woken.set()
        if len(self._owed) > MOST_OWED:
            self._owed.clear()
            self._owes_all = True

    def open(self) -> None:
        """There is a way out."""
        self._is_open = True
        self._woken.set()

    def shut(self) -> None:
        """There is none: what waits is lost."""
        self._is_open = False
        self._idle.set()
        self._lost("dropped", [self._pop() for _ in range(len(self._waiting))])

    async def drained(self) -> None:
        """Wait until whoever takes has come for more and found nothing; at once while it is shut."""
        while self._is_open and not (self.is_empty and self._idle.is_set()):
            self._idle.clear()
            self.nudge()
            await self._idle.wait()

    async def take(self, timeout: float, *, most: int, most_bytes: int) -> Batch | None:
        """The oldest that wait, and all that is owed; None after `timeout` seconds without any."""
        if self.is_empty:
            self._woken.clear()
            self._idle.set()
            try:
                async with asyncio.timeout(timeout):
                    await self._woken.wait()
            except TimeoutError:
                return None
        self._idle.clear()
        batch = Batch(notices=[], owed=self._owed, owes_all=self._owes_all)
        self._owed, self._owes_all, self._is_nudged = set(), False, False
        size = 0
        while self._waiting and len(batch.notices) < most and size < most_bytes:
            size += self._waiting[0][1]
            batch.notices.append(self._pop())
        return batch

    def _pop(self) -> Notice:
        notice, size = self._waiting.popleft()
        self._bytes -= size
        return notice

    def _lost(self, how: Literal["failed", "dropped"], notices: Sequence[Notice]) -> None:
        self._figures.add(how, len(notices))
        self.owe(
            notice.topic
            for notice in notices
            if notice.delta is None or notice.events or not notice.topic.startswith(STREAM)
        )
