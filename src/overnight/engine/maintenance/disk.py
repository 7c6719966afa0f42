"""The disk is watched, so that its end is announced before it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from overnight.engine.policy import Storage

NEAR: Final = 2.0
"""Below this many times the reserve it is said that the disk fills up."""

log = structlog.get_logger(__name__)


class DiskWatch:
    """Says in the log when free space comes near to the reserve, falls below it, and is back again."""

    def __init__(self, free_bytes: Callable[[], int], storage: Storage) -> None:
        self._free_bytes = free_bytes
        self._storage = storage
        self.state = "ok"
        """`ok`, `near` or `full` (then new work is refused)."""

    async def once(self) -> str:
        """Look once; the state."""
        free, reserve = self._free_bytes(), self._storage.reserve_bytes
        state = "full" if free < reserve else "near" if free < NEAR * reserve else "ok"
        if state != self.state:
            (log.info if state == "ok" else log.warning)(
                "disk.changed", state=state, free=free, reserve=reserve
            )
        self.state = state
        return state
