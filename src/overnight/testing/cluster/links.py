"""Links between members that can be cut, silenced, slowed down or made deaf in one direction: TCP proxies of ours.

All of them live in one process of their own (`python -m overnight.testing.cluster.links`), so that what a trial does in
its own loop never slows a link down. It is told what to do by lines on its standard input, and answers each by a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mode = Literal["open", "cut", "silent", "deaf", "mute", "slow"]
"""cut: connections are reset and refused; silent: nothing passes, and nobody is told; deaf: nothing passes to the
client; mute: nothing passes from it; slow: everything passes late."""

SLOW_S = 0.15
RESET = struct.pack("ii", 1, 0)


@dataclass
class Link:
    """One listening port and where it leads."""

    name: str
    host: str
    port: int
    mode: Mode = "open"
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def become(self, mode: Mode) -> None:
        """Change the mode, for connections that exist as well."""
        self.mode = mode
        if mode == "cut":
            for writer in list(self.open):
                _reset(writer)
        self.changed.set()
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        if self.mode == "cut":
            _reset(writer)
            return
        self.open.add(writer)
        try:
            await self._passing("mute")
            behind_reader, behind = await asyncio.open_connection(self.host, self.port)
            self.open.add(behind)
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(reader, behind, "mute"))
                    pumps.create_task(self._pump(behind_reader, writer, "deaf"))
            finally:
                _drop(self.open, behind)
        except* OSError:
            _reset(writer)
        finally:
            _drop(self.open, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hindered: Mode) -> None:
        while data := await reader.read(1 << 16):
            await self._passing(hindered)
            writer.write(data)
            await writer.drain()
        await self._passing(hindered)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _passing(self, hindered: Mode) -> None:
        """Return once something may pass in that direction."""
        while self.mode in {"silent", hindered}:
            await self.changed.wait()
        if self.mode == "slow":
            await asyncio.sleep(SLOW_S)


def _drop(open: set[asyncio.StreamWriter], writer: asyncio.StreamWriter) -> None:
    open.discard(writer)
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection as a machine does that knows nothing of it."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class Links:
    """The process with all links, as a trial sees it. `ports` is known once it has started."""

    def __init__(self, targets: Mapping[str, int], hosts: Mapping[str, str] | None = None) -> None:
        self._targets = dict(targets)
        self._hosts = dict(hosts or {})
        """Where a link listens, when that is not loopback."""
        self._process: asyncio.subprocess.Process | None = None
        self.ports: dict[str, int] = {}
        self.pid = 0

    async def start(self, log: Path) -> None:
        """Listen for every target."""
        with log.open("ab") as err:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", __name__, json.dumps({"hosts": self._hosts, "targets": self._targets}),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=err,
                env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
        self.pid = self._process.pid
        self.ports = await self._answer()

    async def become(self, mode: Mode, *names: str) -> None:
        """Change these links."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"mode": mode, "names": names}).encode() + b"\n")
        await self._answer()

    async def close(self) -> None:
        """End the process. Idempotent."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _answer(self) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the process with the links has ended"
        return {str(name): int(port) for name, port in json.loads(line).items()}


async def _main(hosts: Mapping[str, str], targets: Mapping[str, int]) -> None:
    links = {name: Link(name, "127.0.0.1", port) for name, port in targets.items()}
    ports = {}
    for name, link in links.items():
        server = await asyncio.start_server(link.serve, hosts.get(name, "127.0.0.1"), 0)
        ports[name] = server.sockets[0].getsockname()[1]
    _say(ports)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        told = json.loads(line)
        for name in told["names"]:
            links[name].become(told["mode"])
        _say({})


def _say(answer: Mapping[str, int]) -> None:
    os.write(1, json.dumps(dict(answer)).encode() + b"\n")


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asyncio.run(_main(given["hosts"], given["targets"]))
