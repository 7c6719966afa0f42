"""Waiting in tests without sleeping blindly: named points, gates, and conditions of other processes."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


class Signals:
    """Named points that code under test passes through a callback it was given, and that a test waits for.

    `mark` never blocks; `passing` blocks while the test holds that point. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[object]] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()

    def mark(self, name: str, value: object = None) -> None:
        """The point `name` was reached, with something to show."""
        self._values.setdefault(name, []).append(value)
        self._changed.set()

    def count(self, name: str) -> int:
        """How often `name` was reached."""
        return len(self._values.get(name, ()))

    async def reached(self, name: str, *, times: int = 1, within: float = 30.0) -> object:
        """What was shown when `name` was reached for the `times`-th time; AssertionError after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while self.count(name) < times:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{name!r} was reached {self.count(name)} times, not {times}") from None
        return self._values[name][times - 1]

    def hold(self, name: str) -> None:
        """From now on whoever passes `name` stops there."""
        self._gates[name] = asyncio.Event()

    def release(self, name: str) -> None:
        """Let all who stopped at `name` go on, and later ones pass."""
        gate = self._gates.pop(name, None)
        if gate is not None:
            gate.set()

    async def passing(self, name: str, value: object = None) -> None:
        """Called by the code under test: mark the point, and wait there while it is held."""
        self.mark(name, value)
        gate = self._gates.get(name)
        if gate is not None:
            await gate.wait()


@overload
async def eventually(
    predicate: Callable[[], Awaitable[T]], *, within: float = ..., every: float = ..., what: str = ...
) -> T: ...
@overload
async def eventually(
    predicate: Callable[[], T], *, within: float = ..., every: float = ..., what: str = ...
) -> T: ...
async def eventually(
    predicate: Callable[[], object], *, within: float = 30.0, every: float = 0.005, what: str = ""
) -> object:
    """The first truthy answer of `predicate` (plain or async); AssertionError with the last one after `within` seconds.

    For the state of other processes, files and servers, which cannot be awaited otherwise.
    """
    deadline = time.monotonic() + within
    while True:
        answer = predicate()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(_late(what, within, found))
        await asyncio.sleep(every)


def wait_until(
    predicate: Callable[[], T], *, within: float = 30.0, every: float = 0.005, what: str = ""
) -> T:
    """`eventually` for tests without an event loop."""
    deadline = time.monotonic() + within
    while not (found := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(_late(what, within, found))
        time.sleep(every)
    return found


def _late(what: str, within: float, found: object) -> str:
    return f"not within {within:g} s: {what or 'the condition'} (last answer {found!r})"


def for_this_machine(seconds: float) -> float:
    """`seconds` where every process that is ready has a core, and longer by as many as wait for one: a bound on what
    other processes do is worth nothing when it is loose on a quiet machine, or broken by a busy one.
    """
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
