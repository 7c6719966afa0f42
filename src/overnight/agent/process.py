"""The agent's process: standard input and output on one side, models and tools elsewhere on the other."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from overnight.agent.acp.agent import AgentOfSessions, Workshop
from overnight.agent.acp.peer import Peer
from overnight.client.editor.stdio import MAX_LINE, Stdio
from overnight.errors import InvalidInput

Mode = Literal["work", "ask", "read"]
FOLDER: Final = Path(".overnight") / "agent"
"""Beneath HOME: histories, and what commands have printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What the command and the environment say."""

    endpoint: str
    """Where the server's socket is: `unix:/path`, `ws://…` or `wss://…`."""
    token: str | None = None
    home: Path
    model: str = ""
    """Empty: the operator's default model."""
    effort: str | None = None
    mode: Mode = "work"
    sandbox: str = "none"
    instructions: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of commands that the agent runs."""

    @property
    def folder(self) -> Path:
        """Where the agent keeps its own things."""
        return self.home / FOLDER


async def serve(
    settings: AgentSettings, workshop: Workshop, *, version: str, say: Callable[[str], None]
) -> None:
    """Answer the client at standard input until it has closed it. Raises InvalidInput where there can be none."""
    reader, writer = await _streams()
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    peer = Peer(Stdio(reader, writer, say))
    agent = AgentOfSessions(peer, settings.folder, workshop, version=version, mode=settings.mode)
    try:
        await peer.serve(agent)
    finally:
        agent.close()


async def _streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    import sys  # noqa: PLC0415 - the streams of the process are looked up when it serves

    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if not _is_talkative(stream.fileno()):
            raise InvalidInput(
                f"standard {name} is neither a pipe nor a terminal",
                mend="a client of the Agent Client Protocol starts this program, such as an editor",
            )
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)


def _is_talkative(descriptor: int) -> bool:
    """Whether an event loop can wait for it."""
    kind = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(descriptor)
