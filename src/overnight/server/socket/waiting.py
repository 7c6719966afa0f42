"""Queue and event of a socket. Those of asyncio can have any number of waiters, and take 4 KiB for that."""

from __future__ import annotations

import asyncio
from typing import Any


class Arrivals:
    """What has come, for one reader: as much of `asyncio.Queue` as a socket uses."""

    __slots__ = ("_arrived", "_reader", "_taken")

    def __init__(self) -> None:
        self._arrived: list[Any] = []
        self._taken = 0
        self._reader: asyncio.Future[None] | None = None

    def put_nowait(self, item: Any) -> None:
        """One more has come."""
        self._arrived.append(item)
        _release(self._reader)

    def empty(self) -> bool:
        """Whether everything has been taken."""
        return not self._arrived

    async def get(self) -> Any:
        """The oldest; waits for one."""
        while not self._arrived:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        found = self._arrived[self._taken]
        self._taken += 1
        if self._taken == len(self._arrived):
            self._arrived, self._taken = [], 0
        return found


class Room:
    """Whether there is room to write: as much of `asyncio.Event` as a socket uses."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = True
        self._waiters: list[asyncio.Future[None]] = []

    def is_set(self) -> bool:
        """Whether there is."""
        return self._is_set

    def set(self) -> None:
        """There is; whoever waits goes on."""
        self._is_set = True
        for one in self._waiters:
            _release(one)

    def clear(self) -> None:
        """There is none."""
        self._is_set = False

    async def wait(self) -> bool:
        """Until there is."""
        while not self._is_set:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        return True


def _release(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
