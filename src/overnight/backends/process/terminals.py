"""Commands that an agent has run by us: each is owned by a keeper of its own, and none outlives the turn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from overnight.backends.process.adoption import Dead
from overnight.backends.process.keeper_client import KeeperClient
from overnight.backends.process.output import STDOUT
from overnight.backends.process.talk import Done, OpenTerminal, Refusal, Result, TerminalState
from overnight.errors import BackendFailure, KeeperGone, LeaseLost, Unavailable
from overnight.keeper_protocol import ExitRecord

FOLDER: Final = "terminals"
"""In a turn's folder: one folder for each."""
_NAME: Final = re.compile(r"terminal-[1-9][0-9]{0,8}")
_END_WITHIN_S: Final = 20.0

Launch = Callable[[Path, OpenTerminal], Awaitable[KeeperClient]]
Attach = Callable[[Path], Awaitable[KeeperClient | Dead]]


class Terminals:
    """The commands of one turn, by the names that the codec gives them: the same ones after a replay."""

    def __init__(self, turn_folder: Path, launch: Launch, attach: Attach) -> None:
        self._folder = turn_folder / FOLDER
        self._launch = launch
        self._attach = attach
        self._known: dict[str, KeeperClient | Dead] = {}
        self._finding = asyncio.Lock()

    async def open(self, wanted: OpenTerminal) -> Result:
        """Run the command, once: a terminal that was opened before the last crash is taken up."""
        folder = self._folder / wanted.terminal
        try:
            if folder.exists():
                found = await self._find(wanted.terminal)
                never = found is None or (isinstance(found, Dead) and _never_began(found))
                return Refusal(code="failed", message="the server ended while it began") if never else Done()
            folder.mkdir(parents=True, mode=0o700)
            self._known[wanted.terminal] = await self._launch(folder, wanted)
        except (BackendFailure, Unavailable, KeeperGone, OSError) as error:
            return Refusal(code="failed", message=f"the command cannot be started: {error}")
        return Done()

    async def output(self, name: str, most: int) -> Result:
        """What it has printed so far, at most the last `most` bytes, cut at a character."""
        found = await self._find(name)
        if found is None:
            return _unknown(name)
        text, truncated = await asyncio.to_thread(_tail, self._folder / name / STDOUT, most)
        return _state(_record(found), text, truncated=truncated)

    async def wait(self, name: str) -> Result:
        """How it ended, once it has."""
        found = await self._find(name)
        while isinstance(found, KeeperClient):
            try:
                return _state(await found.ended())
            except KeeperGone:
                self._known.pop(name, None)
                found = await self._find(name)
        return _unknown(name) if found is None else _state(_record(found))

    async def kill(self, name: str) -> Result:
        """End it and all it has started; its output stays."""
        found = await self._find(name)
        if isinstance(found, KeeperClient):
            await _end(found)
        return _unknown(name) if found is None else Done()

    async def release(self, name: str) -> Result:
        """End it, and let go of it."""
        found = await self._find(name)
        if isinstance(found, KeeperClient):
            await _bury(found)
            self._known[name] = Dead(record=found.view.record, survivors=0)
        return _unknown(name) if found is None else Done()

    async def renew(self, **limits: float | None) -> None:
        """Pass a renewal on to every keeper, also of those that an earlier server had opened."""
        for found in [await self._find(name) for name in self._names()]:
            if isinstance(found, KeeperClient) and found.view.record is None:
                with contextlib.suppress(KeeperGone):
                    await found.renew(**limits)

    async def stop(self) -> None:
        """Have all of them ended, without waiting for that."""
        for name in self._names():
            await self.kill(name)

    async def end(self) -> None:
        """End all of them, also those that an earlier server had opened. Idempotent."""
        found = [await self._find(name) for name in self._names()]
        await asyncio.gather(*(_bury(client) for client in found if isinstance(client, KeeperClient)))

    async def leave(self) -> None:
        """Let go of all without touching them. Idempotent."""
        for found in self._known.values():
            if isinstance(found, KeeperClient):
                await found.close()

    def _names(self) -> list[str]:
        return sorted(entry.name for entry in self._folder.iterdir()) if self._folder.is_dir() else []

    async def _find(self, name: str) -> KeeperClient | Dead | None:
        async with self._finding:
            if name not in self._known and _NAME.fullmatch(name) and (self._folder / name).is_dir():
                self._known[name] = await self._attach(self._folder / name)
            return self._known.get(name)


async def _end(client: KeeperClient) -> None:
    if client.view.record is None:
        with contextlib.suppress(KeeperGone):
            await client.ladder()


async def _bury(client: KeeperClient) -> None:
    try:
        await _end(client)
        async with asyncio.timeout(_END_WITHIN_S):
            await client.ended()
        await client.release()
    except (KeeperGone, LeaseLost, TimeoutError):
        pass  # its keeper goes on with the ladder, or its spawner sweeps
    finally:
        await client.close()


def _record(found: KeeperClient | Dead) -> ExitRecord | None:
    return found.record if isinstance(found, Dead) else found.view.record


def _state(record: ExitRecord | None, output: str = "", *, truncated: bool = False) -> TerminalState:
    if record is None:
        return TerminalState(output=output, truncated=truncated)
    name = None if record.signal is None else _signal_name(record.signal)
    code = record.exit_code if name is not None or record.exit_code is not None else 1
    return TerminalState(output=output, truncated=truncated, ended=True, exit_code=code, signal=name)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def argv_of(wanted: OpenTerminal) -> tuple[str, ...]:
    """The command with its standard error where its output goes, in the order in which both are written."""
    if wanted.args:
        return ("/bin/sh", "-c", 'exec "$@" 2>&1', "sh", wanted.command, *wanted.args)
    return ("/bin/sh", "-c", 'exec 2>&1; eval "$1"', "sh", wanted.command)


def _tail(path: Path, most: int) -> tuple[str, bool]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            data = file.read(most)
    except OSError:
        return "", False
    if size > most:
        data = _from_a_character(data)
    return data.decode("utf-8", "replace"), size > most


def _from_a_character(data: bytes) -> bytes:
    start = 0
    while start < min(4, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]


def _never_began(found: Dead) -> bool:
    return found.record is None or found.record.reason == "never_started"


def _unknown(name: str) -> Refusal:
    return Refusal(code="not_found", message=f"there is no terminal {name[:100]}")
