"""Work that blocks on the disk, done beside the event loop and never left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Says to work in a thread that nobody waits for it any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ask(self) -> None:
        """Stop as soon as that leaves nothing half done."""
        self._event.set()

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()


async def in_thread(work: Callable[[Stop], T]) -> T:
    """What `work` returns. When cancelled, it is asked to stop, and waited for, before the cancellation goes on."""
    stop = Stop()
    running = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.ask()
        while not running.done():
            # A second cancellation changes nothing: what is being written is finished or taken back first.
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # is known; the cancellation says enough
        raise
