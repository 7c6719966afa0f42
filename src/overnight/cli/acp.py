"""`overnight acp`: an editor drives Overnight as an agent of the Agent Client Protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import sys
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from overnight.cli.output import say
from overnight.errors import ConfigInvalid

if TYPE_CHECKING:
    from acp import Agent

    from overnight.client import Client, Endpoint
    from overnight.config.sources import Sources

RESTART_S: Final = 2.0
"""A server that was started for the editor, and is gone for so long while work is followed, is started again."""

GRACE_S: Final = 10.0
"""A server that somebody else has started gets so long to come back before one is started in its place."""
LOOK_S: Final = 0.1


def acp(
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="Agent program; see: overnight backends.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="autonomous, ask_all, ask_writes or ask_outside_workspace."),
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option("--sandbox", help="read_only, workspace_write or full_access.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model for the agent program.")] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Another server than that of this machine; wants OVERNIGHT_TOKEN."),
    ] = None,
) -> None:
    """Be the agent of an editor: the Agent Client Protocol over standard input and output.

    Editors start this by themselves. Each of their sessions is a session here, and each prompt a message to it, so
    work goes on when the editor is closed and can be watched and approved from anywhere. Talks to the running server;
    without one, starts one in the background that ends when it is idle. The options hold for new sessions.
    """
    from overnight.config.sources import read

    _check_streams()
    sources = read(overrides={"url": url} if url else None)
    given = {"backend": backend, "approval_policy": policy, "sandbox": sandbox, "model": model}
    defaults = {name: value for name, value in given.items() if value is not None}
    # The library tells its log what it made of bad messages; one line each is enough.
    logging.basicConfig(stream=sys.stderr, format="overnight acp: %(message)s", level=logging.ERROR)
    asyncio.run(_serve(sources, defaults))


def _check_streams() -> None:
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        kind = os.fstat(stream.fileno()).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stream.isatty()):
            raise ConfigInvalid(
                f"standard {name} is neither a pipe nor a terminal", mend="let an editor start this command"
            )
    if sys.stdin.isatty():
        _tell("an editor starts this, and speaks JSON to it; Ctrl-D ends it")


async def _serve(sources: Sources, defaults: dict[str, str]) -> None:
    from acp import run_agent
    from acp.stdio import stdio_streams

    from overnight.client.editor.agent import EditorAgent
    from overnight.client.editor.stdio import MAX_LINE, Stdio
    from overnight.version import VERSION

    reader, writer = await stdio_streams(limit=MAX_LINE)
    transport = Stdio(reader, writer, _tell)
    server = _Server(sources)
    agent = EditorAgent(
        server.client, transport, version=VERSION, defaults=defaults, say=_tell, lost=server.lost
    )
    try:
        # What the library's type wants besides is optional: it answers `method not found` itself.
        await run_agent(cast("Agent", agent), transport, use_unstable_protocol=True)
    finally:
        await agent.close()
        await server.close()


class _Server:
    """The server behind the editor. One that we have started is started again when it is gone and still needed."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._client: Client | None = None
        self._ours = False
        self._starting = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None

    async def client(self) -> Client:
        """A client of a server that runs now. Raises Unreachable, StartRefused."""
        from overnight.cli.connect import found, locate
        from overnight.client import Client

        async with self._starting:
            running = await self._running()
            endpoint = running or await found(self._sources, start=True)
            self._ours |= running is None
            if self._client is None:
                self._client = Client(
                    endpoint.url, endpoint.token, certificate=endpoint.certificate,
                    locate=lambda: locate(self._sources),
                )  # fmt: skip
        return self._client

    async def _running(self) -> Endpoint | None:
        """The server that runs now. One of somebody else's that is away may just be started again."""
        from overnight.cli.connect import locate

        theirs = self._client is not None and not self._ours
        tries = round(GRACE_S / LOOK_S) if theirs else 0
        for _ in range(tries):
            if endpoint := locate(self._sources):
                return endpoint
            await asyncio.sleep(LOOK_S)
        return locate(self._sources)

    def lost(self, why: str) -> None:
        """A stream was cut."""
        _tell(f"connection lost ({why}); trying again")
        if self._ours and (self._again is None or self._again.done()):
            self._again = asyncio.create_task(self._start_again(), name="start the server again")

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        if self._again is not None:
            self._again.cancel()
            await asyncio.gather(self._again, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def _start_again(self) -> None:
        from overnight.errors import OvernightError

        await asyncio.sleep(RESTART_S)
        try:
            await self.client()
        except OvernightError as error:
            _tell(error.detail)


def _tell(words: str) -> None:
    # An editor that does not read our errors has closed them.
    with contextlib.suppress(OSError):
        say(f"overnight acp: {words}")
