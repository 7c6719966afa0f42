"""Runs one turn of a program without keeper or engine: for tests of codecs and command lines with the real program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from overnight.backends.process.program import Codec, Command, Exit, Program, Verdict
from overnight.domain.update import SessionKnown, TurnOutcome, Update
from overnight.ports.backend import TurnLimits, TurnStart


@dataclass(frozen=True, kw_only=True, slots=True)
class BareTurn:
    """What a turn gave. `raw` is standard output as it was printed."""

    updates: tuple[Update, ...]
    outcome: TurnOutcome
    exit: Exit
    raw: bytes = field(repr=False, default=b"")

    @property
    def resume(self) -> dict[str, object]:
        """The last session state, for the next turn's start."""
        states = [update.state for update in self.updates if isinstance(update, SessionKnown)]
        return dict(states[-1]) if states else {}


def turn_start(folder: Path, *, prompt: str = "Do it.", **changes: object) -> TurnStart:
    """A start for tests: workspace, home and turn folder are made beneath `folder`; anything can be changed."""
    fields: dict[str, object] = {
        "run_id": "run_00000000000000000000000000",
        "turn": 1,
        "attempt": 1,
        "token": 1,
        "folder": folder / "turn",
        "workspace": folder / "workspace",
        "home": folder / "home",
        "prompt": prompt,
        "limits": TurnLimits(timeout_s=60, output_bytes=1 << 30, children=500, grace_s=5),
    } | changes
    for name in ("folder", "workspace", "home"):
        Path(str(fields[name])).mkdir(parents=True, exist_ok=True)
    return TurnStart(**fields)  # type: ignore[arg-type]  # the caller's changes are checked by the dataclass's users


async def run_bare(
    program: Program,
    start: TurnStart,
    *,
    interrupt_after: Callable[[], Awaitable[object]] | None = None,
    within_s: float = 50,
) -> BareTurn:
    """Start the program, feed its codec, return what came; interrupted once `interrupt_after` has come back."""
    command = program.command(start)
    process = await asyncio.create_subprocess_exec(
        *command.argv,
        env=dict(command.env),
        cwd=command.cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
        start_new_session=True,
    )
    interrupting = asyncio.ensure_future(_interrupt(process, command, interrupt_after))
    try:
        async with asyncio.timeout(within_s):
            return await _drive(process, command, program.codec(start))
    finally:
        interrupting.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _interrupt(
    process: asyncio.subprocess.Process, command: Command, after: Callable[[], Awaitable[object]] | None
) -> None:
    if after is not None:
        await after()
        wanted = command.interrupt.signal if command.interrupt else None
        process.send_signal(wanted or signal.SIGTERM)


async def _drive(process: asyncio.subprocess.Process, command: Command, codec: Codec) -> BareTurn:
    updates: list[Update] = []
    raw: list[bytes] = []

    async def read(
        stream: asyncio.StreamReader, decode: Callable[[bytes], list[Update]], kept: list[bytes]
    ) -> None:
        async for line in stream:
            kept.append(line)
            updates.extend(decode(line))

    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(command.stdin)
    process.stdin.close()
    await asyncio.gather(read(process.stdout, codec.stdout, raw), read(process.stderr, codec.stderr, []))
    status = await process.wait()
    ended = Exit(signal=-status) if status < 0 else Exit(code=status)
    verdict: Verdict = codec.finish(ended)
    return BareTurn(
        updates=(*updates, *verdict.updates), outcome=verdict.outcome, exit=ended, raw=b"".join(raw)
    )
