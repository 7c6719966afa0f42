"""The official clients, pointed at a test's server, and a log for them to read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from tests.responses.logs import draft
from tests.server.stage import Stage

from overnight.domain.event import Draft, Recorded
from overnight.domain.run import Run
from overnight.domain.states import Input
from overnight.domain.values import Completion, Failure, Stats, Usage
from overnight.engine import moves
from overnight.ports.notifier import Notice, stream_topic
from overnight.ports.unit_of_work import Transaction
from overnight.testing.signals import eventually

SCRIPT = Path(__file__).with_name("reader.mjs")
USAGE = Usage(input=100, cached=20, output=30, reasoning=5)


def base_url(stage: Stage) -> str:
    return f"{stage.base}/api/v1/openai"


@contextlib.asynccontextmanager
async def python(stage: Stage, secret: str = "") -> AsyncIterator[AsyncOpenAI]:
    """The Python client."""
    async with AsyncOpenAI(
        api_key=secret or stage.secret, base_url=base_url(stage), max_retries=0, timeout=60
    ) as client:
        yield client


class Node:
    """The JavaScript client, a process for each call; what it prints is there as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.errors = b""
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))
        self.errors = await self.process.stderr.read()
        await self.process.wait()

    async def all(self) -> list[dict[str, Any]]:
        """Everything, once it has ended well."""
        async with asyncio.timeout(120):
            await self.task
        assert self.process.returncode == 0, self.errors
        return self.lines

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far."""
        return [line["value"] for line in self.lines if line["kind"] == "event"]

    def has(self, type: str) -> bool:
        """Whether an event of that type has come."""
        return type in [event["type"] for event in self.events]


@contextlib.asynccontextmanager
async def node(package: Path, stage: Stage, run: Run, *how: str, secret: str = "") -> AsyncIterator[Node]:
    """A call of the JavaScript client."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("the JavaScript client needs Node.js, which is not on PATH")
    process = await asyncio.create_subprocess_exec(
        program, str(SCRIPT), str(package), base_url(stage), secret or stage.secret, run.id, *how,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 24,
    )  # fmt: skip
    found = Node(process)
    try:
        yield found
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(found.task, return_exceptions=True)


async def record(stage: Stage, run: Run, *drafts: Draft) -> tuple[Recorded, ...]:
    """Record events."""
    return await stage.store.write(lambda tx: tx.events.append(run.pk, drafts, stage.clock.wall_ms()))


async def claim(stage: Stage, run: Run) -> None:
    """A worker takes the run, and its first turn begins."""

    def unit(tx: Transaction) -> None:
        now = stage.clock.wall_ms()
        locked = replace(tx.runs.lock(run.pk), turn=1, attempt=1)
        moves.move(tx, locked, Input.CLAIM, "run.started", now, {"worker": "w"})

    await stage.store.write(unit)
    await record(stage, run, draft("turn.started", turn=1, backend="echo", pid=1))


async def finish(stage: Stage, run: Run, failure: Failure | None = None) -> None:
    """Let a claimed run complete, or fail."""

    def unit(tx: Transaction) -> None:
        now = stage.clock.wall_ms()
        locked = replace(tx.runs.lock(run.pk), stats=Stats(turns=1, usage=USAGE))
        if failure is None:
            moves.complete(tx, locked, Completion(by="one_turn"), now)
        else:
            moves.fail(tx, locked, failure, now)

    await stage.store.write(unit)


async def show(stage: Stage, run: Run, seen: Callable[[], object], *fragments: bytes) -> None:
    """Publish fragments until they are seen: whoever is just catching up with the log misses them, as it may."""
    notifier: Any = stage.follower._notifier

    def again() -> object:
        notifier.publish([Notice(topic=stream_topic(run.id), delta=body) for body in fragments])
        return seen()

    await eventually(again, within=120, every=0.02, what="what is shown live")
