"""Runs commands as a user of a staged server would."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.server.stage import Stage

from overnight.cli.app import run


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int | None
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Shell:
    """Runs commands as a user of the staged server would."""

    stage: Stage
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        here = {"PATH": os.environ["PATH"], "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home)}
        return here | {"OVERNIGHT_URL": self.stage.base, "OVERNIGHT_TOKEN": self.stage.secret} | more

    async def start(self, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        pipes = {
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "overnight",
            *arguments,
            env=self.environment(),
            cwd=self.home,
            **(pipes | options),
        )

    async def __call__(self, *arguments: str) -> Done:
        """In this process: most of a command's time goes into loading it."""
        return await asyncio.wait_for(asyncio.to_thread(self._within, arguments), 90)

    def _within(self, arguments: tuple[str, ...]) -> Done:
        out, err = io.StringIO(), io.StringIO()
        status: object = None
        swapped = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with mock.patch.dict(os.environ, self.environment()), swapped[0], swapped[1]:
            try:
                run(list(arguments))
            except SystemExit as end:
                status = end.code
        return Done(int(str(status or 0)), out.getvalue(), err.getvalue())

    async def process(self, *arguments: str) -> Done:
        """As a process of its own, for what depends on one."""
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(), 90)
        return Done(process.returncode, out.decode(), err.decode())


def read_all(descriptor: int) -> bytes:
    found = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            piece = b""
        if not piece:
            os.close(descriptor)
            return found
        found += piece
