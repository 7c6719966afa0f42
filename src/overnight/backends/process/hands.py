"""Does what an agent asks of us: files beneath the workspace, commands in terminals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol, assert_never

from overnight.backends.process.talk import (
    Deed,
    Done,
    OpenTerminal,
    ReadText,
    Refusal,
    Result,
    Text,
    UseTerminal,
    WriteText,
)
from overnight.backends.process.terminals import Terminals
from overnight.errors import LeaseLost, OvernightError, WorkspaceRefused
from overnight.ports.backend import TurnStart

MOST_TOLD: Final = 2 << 20
"""Characters of a file in one answer: every answer is stored before it is sent."""


class Files(Protocol):
    """Text files in workspaces. Both block on the disk, and raise FileNotFoundError or WorkspaceRefused."""

    def read(self, workspace: Path, path: str) -> str:
        """The whole text."""
        ...

    def write(self, workspace: Path, path: str, text: str, *, guarded: bool) -> None:
        """Make it the file's text. `guarded`: not where other programs take commands from."""
        ...


class Hands:
    """Of one turn. A deed that cannot be done is refused; only a lost hold is raised."""

    def __init__(self, start: TurnStart, files: Files | None, terminals: Terminals) -> None:
        self.terminals = terminals
        self._start = start
        self._files = files

    async def do(self, deed: Deed) -> Result:
        """Do it and say what came of it. A deed that was done before a crash can be done again."""
        try:
            match deed:
                case ReadText():
                    return await self._read(deed)
                case WriteText():
                    return await self._write(deed)
                case OpenTerminal():
                    return await self.terminals.open(deed)
                case UseTerminal():
                    return await self._use(deed)
                case _:
                    assert_never(deed)
        except LeaseLost:
            raise
        except FileNotFoundError:
            return Refusal(code="not_found", message="Resource not found: there is no such file")
        except WorkspaceRefused as refused:
            return Refusal(code="refused", message=refused.detail)
        except (OvernightError, OSError) as error:
            return Refusal(code="failed", message=str(error))

    async def text_of(self, path: str, most: int) -> str | None:
        """What stands in a file now, to be shown beside what shall stand there; None where that is nothing."""
        if self._files is None:
            return None
        try:
            text = await asyncio.to_thread(self._files.read, self._start.workspace, path)
        except (OvernightError, OSError):
            return None
        return text if len(text) <= most else None

    async def _read(self, deed: ReadText) -> Result:
        if self._files is None:
            return Refusal(code="refused", message="files are not read here")
        text = await asyncio.to_thread(self._files.read, self._start.workspace, deed.path)
        if deed.line is not None or deed.limit is not None:
            lines = text.splitlines(keepends=True)
            first = max(0, (deed.line or 1) - 1)
            text = "".join(lines[first : None if deed.limit is None else first + deed.limit])
        if len(text) > MOST_TOLD:
            return Refusal(code="refused", message=f"more than {MOST_TOLD} characters: ask for fewer lines")
        return Text(text=text)

    async def _write(self, deed: WriteText) -> Result:
        if self._files is None or self._start.sandbox == "read_only":
            return Refusal(code="refused", message="the workspace may only be read in this run")
        guarded = self._start.sandbox != "full_access"
        await asyncio.to_thread(
            self._files.write, self._start.workspace, deed.path, deed.text, guarded=guarded
        )
        return Done()

    async def _use(self, deed: UseTerminal) -> Result:
        match deed.verb:
            case "output":
                return await self.terminals.output(deed.terminal, deed.output_bytes)
            case "wait":
                return await self.terminals.wait(deed.terminal)
            case "kill":
                return await self.terminals.kill(deed.terminal)
            case "release":
                return await self.terminals.release(deed.terminal)
