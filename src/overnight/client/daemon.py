"""Work in a thread that nothing waits for at the end of the program: a function that hangs must not hold it up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError as Gone
from typing import Any, TypeVar

from overnight.errors import ToolFailure

T = TypeVar("T")
Ask = Callable[[Coroutine[Any, Any, Any]], Any]
"""From the thread: have something awaited on the loop, and wait for it."""


class Abandoned(ToolFailure):
    """Nobody waits any more for what this thread does: its call was cancelled."""


async def in_daemon(work: Callable[[Ask], T], *, name: str) -> T:
    """What `work` returns or raises. Cancelled, this ends at once; the thread goes on until it asks for something."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()
    over = threading.Event()

    def ask(coroutine: Coroutine[Any, Any, Any]) -> Any:
        if over.is_set() or loop.is_closed():
            coroutine.close()
            raise Abandoned("the call was cancelled")
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        except Gone:
            raise Abandoned("the call was cancelled") from None

    thread = threading.Thread(target=_carried_out, args=(work, ask, loop, found), name=name, daemon=True)
    thread.start()
    try:
        return await found
    finally:
        over.set()


def _carried_out(
    work: Callable[[Ask], T], ask: Ask, loop: asyncio.AbstractEventLoop, found: asyncio.Future[T]
) -> None:
    try:
        value = work(ask)
    except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
        _settle(loop, found, None, error)
    else:
        _settle(loop, found, value, None)


def _settle(
    loop: asyncio.AbstractEventLoop, found: asyncio.Future[T], value: Any, error: BaseException | None
) -> None:
    def settled() -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(_awaitable(error))
        else:
            found.set_result(value)

    if not loop.is_closed():
        loop.call_soon_threadsafe(settled)


def _awaitable(error: BaseException) -> BaseException:
    """What a future can hold, and what does not end the program when it is awaited: `sys.exit` in a tool is a fault."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
