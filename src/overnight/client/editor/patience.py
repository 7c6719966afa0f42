"""Asking a server that may just be starting again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from overnight.errors import Unauthorized, Unavailable, Unreachable

T = TypeVar("T")
REST_S: Final = 0.25
STRANGER_S: Final = 5.0
"""A server that has just started answers for a moment before it has announced its new token."""


async def patiently(ask: Callable[[], Awaitable[T]], within_s: float | None = None) -> T:
    """The answer, as soon as there is a server to give it; None: however long that takes.

    `ask` is called again and again, so it must be safe to repeat. Raises what the last try raised.
    """
    loop = asyncio.get_running_loop()
    began, strange_since = loop.time(), None
    while True:
        try:
            return await ask()
        except Unauthorized:
            strange_since = strange_since or loop.time()
            if loop.time() - strange_since > STRANGER_S:
                raise
        except (Unreachable, Unavailable):
            strange_since = None
            if within_s is not None and loop.time() - began > within_s:
                raise
        await asyncio.sleep(REST_S)
