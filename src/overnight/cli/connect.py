"""Finds the server that the commands talk to, and starts one where that is wanted."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final, TypeVar, cast

from overnight.cli.exits import Exit
from overnight.client import Client, Endpoint
from overnight.config import server_file
from overnight.config.paths import private_dir
from overnight.config.sources import Sources, read
from overnight.errors import ConfigInvalid, DataInUse, StartRefused, Unreachable

T = TypeVar("T")
START_WITHIN_S: Final = 30.0
IDLE_EXIT: Final = "60s"
"""A server that `overnight run` started ends after this long without anything to do."""


def call(question: Callable[[Client], Awaitable[T]]) -> T:
    """Ask the running server one thing. Raises Unreachable when there is none."""

    async def ask() -> T:
        async with connected() as client:
            return await question(client)

    return asyncio.run(ask())


@asynccontextmanager
async def connected(*, start: bool = False) -> AsyncIterator[Client]:
    """A client of the running server; with `start`, of one in the background if none runs. Raises Unreachable."""
    sources = read()
    endpoint = await found(sources, start=start)
    async with Client(
        endpoint.url, endpoint.token, certificate=endpoint.certificate, locate=lambda: locate(sources)
    ) as client:
        yield client


async def found(sources: Sources, *, start: bool) -> Endpoint:
    """Where the server is; with `start`, of one that is started now if none runs. Raises Unreachable, StartRefused."""
    endpoint = locate(sources)
    if endpoint is None and start and sources["url"] is None:
        endpoint = await _start(sources)
    if endpoint is None:
        raise Unreachable(
            f"no server serves {sources['data_dir']}",
            mend="start one with: overnight up (or set OVERNIGHT_URL)",
        )
    return endpoint


def locate(sources: Sources) -> Endpoint | None:
    """Where the server is: the one that the settings name, else the one that announced itself for the data."""
    url, token = cast("str | None", sources["url"]), cast("str | None", sources["server.token"])
    if url is not None:
        if token is None:
            raise ConfigInvalid(
                "a server is named but no token", mend="set OVERNIGHT_TOKEN to one of its tokens"
            )
        return Endpoint(url, token)
    found = server_file.read(cast("Path", sources["data_dir"]), sources.environment)
    certificate = cast("Path | None", sources["server.tls_certificate"])
    return Endpoint(found.url, found.token, certificate) if found else None


async def _start(sources: Sources) -> Endpoint:
    """Start `overnight up` as a process of its own and wait until it has announced itself.

    Raises StartRefused with the end of its words when it gives up.
    """
    data_dir = cast("Path", sources["data_dir"])
    log = private_dir(data_dir) / "server.log"
    with _appending(log) as out:
        # -P: a file in the current directory must not be taken for one of our modules.
        process = subprocess.Popen(  # noqa: ASYNC220  takes about a millisecond
            [
                sys.executable,
                "-P",
                "-m",
                "overnight",
                "up",
                "--exit-when-idle",
                IDLE_EXIT,
                *_address(sources),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    deadline = asyncio.get_running_loop().time() + START_WITHIN_S
    while asyncio.get_running_loop().time() < deadline:
        if endpoint := locate(sources):
            return endpoint
        if process.poll() is not None and process.returncode != Exit.DATA_IN_USE:
            raise StartRefused(f"the server ended at once: {_end_of(log)}", mend=f"its log is {log}")
        await asyncio.sleep(0.02)
    if process.poll() == Exit.DATA_IN_USE:
        raise DataInUse(f"another server holds {data_dir}, and does not say where it answers")
    raise Unreachable(f"the server did not come up within {START_WITHIN_S:.0f} s", mend=f"its log is {log}")


def _address(sources: Sources) -> list[str]:
    """Another port when the usual one is taken, say by the server of other data; one that was chosen stays."""
    found = sources.found["server.listen"]
    if found.origin != "default":
        return []
    try:
        socket.create_server(cast("tuple[str, int]", found.value)).close()
    except OSError:
        return ["--listen", "127.0.0.1:0"]
    return []


def _appending(log: Path) -> IO[bytes]:
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return " ".join(line.strip() for line in lines[-3:])
