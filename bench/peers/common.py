"""What every peer's program does alike. Standard library only: it runs in the peers' environment, not in ours.

`python PEER.py setup URL`, `… enqueue URL COUNT CLIENTS [PACE_S]` and `… work URL LOG`. A job does nothing but say in
the log that it has begun and that it has ended, with its number and the machine's monotonic clock; its payload is its
number and the moment before it was enqueued.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Enqueue = Callable[[str], Awaitable[object]]


@dataclass(frozen=True)
class Peer:
    """One queue. `opened` gives as many enqueuing clients as asked for; `work` serves until killed."""

    setup: Callable[[str], Coroutine[Any, Any, None]]
    opened: Callable[[str, int], Awaitable[list[Enqueue]]]
    work: Callable[[str], Coroutine[Any, Any, None]]


class Log:
    """Where the jobs of a worker tell what they do."""

    descriptor = -1

    @classmethod
    def open(cls, path: str) -> None:
        cls.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @classmethod
    def tell(cls, what: str, payload: str) -> None:
        number, _, asked = payload.partition(" ")
        os.write(cls.descriptor, f"{what} {number} {asked} {time.monotonic()}\n".encode())


def job(payload: str) -> None:
    """The body of every job."""
    Log.tell("begun", payload)
    Log.tell("ended", payload)


async def enqueue(peer: Peer, url: str, count: int, clients: int, pace_s: float) -> None:
    """Each client waits for its own answer before it asks again; with a pace one job each `pace_s`."""
    opened = await peer.opened(url, clients)
    numbers = iter(range(count))

    async def client(call: Enqueue) -> None:
        due = time.monotonic()
        for number in numbers:
            await call(f"{number} {time.monotonic()}")
            if pace_s:
                due += pace_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    begun = time.monotonic()
    await asyncio.gather(*map(client, opened))
    print(json.dumps({"seconds": time.monotonic() - begun, "count": count}), flush=True)
    os._exit(0)  # whatever the peer still keeps open is of no interest


def main(peer: Peer) -> None:
    """Do what the command line says."""
    action, url, *rest = sys.argv[1:]
    if action == "setup":
        asyncio.run(peer.setup(url))
    elif action == "enqueue":
        asyncio.run(enqueue(peer, url, int(rest[0]), int(rest[1]), float(rest[2]) if len(rest) > 2 else 0.0))
    else:
        Log.open(rest[0])
        asyncio.run(peer.work(url))
