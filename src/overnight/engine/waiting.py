"""Waiting for several things at once, on the injected clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from overnight.clock import Clock

T = TypeVar("T")


async def within(clock: Clock, seconds: float, event: Awaitable[object]) -> bool:
    """Whether `event` happened before `seconds` of `clock` had passed; the one that did not is cancelled."""
    waiter = asyncio.ensure_future(event)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({waiter, timer}, return_when=asyncio.FIRST_COMPLETED)
        if waiter.done():
            waiter.result()
        return waiter.done()
    finally:
        await end(waiter, timer)


async def unless(event: Awaitable[object], work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives, or None when `event` came first: then `work` has been cancelled."""
    worker = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(event)
    try:
        await asyncio.wait({worker, waiter}, return_when=asyncio.FIRST_COMPLETED)
        return worker.result() if worker.done() else None
    finally:
        await end(worker, waiter)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel those that still run and wait for their ends; what they raise on the way is of no interest."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
