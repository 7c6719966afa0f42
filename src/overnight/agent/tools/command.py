"""Runs one command to its end, with everything that it starts, and hears what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import overnight.keeper_protocol
from overnight.agent.tools.output import Output

STOP_GRACE_S: Final = 2.0
"""Between SIGTERM and SIGKILL for a command that is stopped."""
DRAIN_S: Final = 30.0
"""How long what was printed is read when all that could print has ended: its end comes as soon as it is read."""
LOST_DRAIN_S: Final = 2.0
"""The same when something may still be alive that could print."""
_PIECE: Final = 65_536
_SOURCE: Final = Path(overnight.keeper_protocol.__file__).resolve().parents[1]
_START: Final = (
    f"import sys; sys.path.insert(0, {str(_SOURCE)!r}); from overnight.agent.tools.runner import main; main()"
)


class NotStarted(Exception):
    """There is no such program, or it may not be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended. `exit_code` is 128 + n for signal n; None when it was stopped."""

    exit_code: int | None
    timed_out: bool
    seconds: float
    left: int = 0
    """Processes that would not die."""


async def run_command(
    argv: Sequence[str], *, folder: Path, environment: Mapping[str, str], output: Output, timeout_s: float
) -> Ended:
    """Run `argv` in `folder` until it ends, or for `timeout_s`; what it prints goes to `output`, in its order.

    When this returns, raises, or is cancelled, nothing that the command has started is alive, as far as its processes
    can be found (`left`). Raises NotStarted.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with _started(argv, folder, environment) as (command, printed):
        reading = asyncio.create_task(_read(printed, output), name="read what a command prints")
        try:
            timed_out = await command.over(timeout_s)
            await asyncio.wait(
                [reading], timeout=DRAIN_S if command.report.get("left") == 0 else LOST_DRAIN_S
            )
            if reading.done():
                await reading
        finally:
            await _off(reading)
    found = command.report
    if "refused" in found:
        raise NotStarted(f"{argv[0][:200]}: {str(found['refused']).lower()}")
    code = None if timed_out else int(found.get("exit_code", -1))
    return Ended(
        exit_code=code, timed_out=timed_out, seconds=loop.time() - begun, left=int(found.get("left", 0))
    )


class _Command:
    def __init__(self, runner: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._runner = runner
        self._control = control
        self.report: dict[str, Any] = {}

    async def over(self, timeout_s: float) -> bool:
        """Wait until nothing of it is left; whether it had to be stopped."""
        hearing = asyncio.create_task(self._hear(), name="hear how a command ended")
        try:
            done, _ = await asyncio.wait([hearing], timeout=timeout_s)
        finally:
            self.stop()
            await _surely(hearing)
        return not done

    def stop(self) -> None:
        """The runner sees the end of what we send, and ends the command."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    async def _hear(self) -> None:
        """One line, or nothing from a runner that was killed."""
        loop = asyncio.get_running_loop()
        data = b""
        while piece := await loop.sock_recv(self._control, 4096):
            data += piece
        with contextlib.suppress(ValueError):
            self.report = json.loads(data or b"{}")
        await self._runner.wait()


@contextlib.asynccontextmanager
async def _started(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[tuple[_Command, BinaryIO]]:
    """The command, and the pipe of what it prints."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    printed, printing = os.pipe()
    with ours, os.fdopen(printed, "rb", buffering=0) as pipe:
        spawning = asyncio.ensure_future(_spawned(argv, folder, environment, theirs, printing))
        try:
            runner = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await _surely(spawning)
            if spawning.exception() is None:
                await _Command(spawning.result(), ours).over(0)
            raise
        yield _Command(runner, ours), pipe


async def _spawned(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], control: socket.socket, printing: int
) -> asyncio.subprocess.Process:
    """Closes our ends of what the runner has: only then the end of what it has can be seen."""
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-E", "-c", _START, str(STOP_GRACE_S), *argv,
            cwd=folder, env=dict(environment), start_new_session=True,
            stdin=control.fileno(), stdout=printing, stderr=printing,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NotStarted(f"{argv[0][:200]}: {reason.lower()}") from None
    finally:
        control.close()
        os.close(printing)


async def _read(pipe: BinaryIO, output: Output) -> None:
    """Until nobody can print any more."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_PIECE)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(_PIECE):
            output.take(data)
    finally:
        transport.close()


async def _off(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _surely(task: asyncio.Future[Any]) -> None:
    """Wait for its end, however often we are cancelled; the last cancellation goes on."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
