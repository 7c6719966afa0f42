"""Any agent program as a backend: a keeper owns its process, a codec says what its output means."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

from overnight.backends.process.adoption import Dead, attach
from overnight.backends.process.framing import OutputTruncated
from overnight.backends.process.hands import Files, Hands
from overnight.backends.process.keeper_client import KeeperClient
from overnight.backends.process.output import STDERR, STDOUT, TurnOutput, is_long
from overnight.backends.process.program import Command, Program
from overnight.backends.process.spawner_client import SpawnerClient
from overnight.backends.process.talk import OpenTerminal, Talking, TalkingProgram
from overnight.backends.process.terminals import Terminals, argv_of
from overnight.backends.process.turn import Fence, Holding, ProcessTurn
from overnight.backends.process.walls import Walls, judged, widened
from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.errors import BackendFailure, KeeperGone, Unavailable
from overnight.keeper_protocol import LaunchSpec, Limits
from overnight.ports.backend import StoreInput, TurnStart
from overnight.ports.sandbox import Confined, Sandbox

_ABANDONED = frozenset({"keeper_lost", "terminated", "never_started"})


class ProcessBackend:
    """See `Backend`. One for each program; all share one spawner client.

    `fence` says at which boot-clock second a keeper ends its agent unless the hold is renewed, where another host could
    take the turn over; None where none can. `clock` must be the machine's own: keepers live by it. `sandbox` confines
    the whole process of every turn that does not ask for full access, where it works; None: only the program confines
    itself.
    """

    def __init__(
        self,
        program: Program,
        spawner: SpawnerClient,
        *,
        clock: Clock,
        data_dir: Path,
        fence: Fence | None = None,
        sandbox: Sandbox | None = None,
        files: Files | None = None,
    ) -> None:
        self._program = program
        self._spawner = spawner
        self._clock = clock
        self._data_dir = data_dir
        self._fence = fence
        self._sandbox = sandbox
        self._files = files

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return self._program.name

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend.capabilities`."""
        return widened(self._program.capabilities, self._sandbox)

    async def check(self) -> BackendCheck:
        """See `Backend.check`."""
        return judged(await self._program.check(), self._sandbox)

    def stamp(self) -> str:
        """See `Backend.stamp`."""
        return self._program.stamp()

    async def start(self, start: TurnStart, store_input: StoreInput) -> ProcessTurn:
        """See `Backend.start`."""
        walls = Walls(sandbox=self._sandbox, start=start, own=self._program.capabilities)
        command = self._program.command(walls.told)
        codec = self._program.codec(start)
        confined = await walls.around(command.argv, command, command.cwd)
        spec = self._spec(start, start.folder, command, confined)
        if isinstance(codec, Talking):
            await store_input(1, command.stdin)
        try:
            keeper = await self._spawner.launch(spec, start.token)
        except (KeeperGone, Unavailable, OSError) as error:
            # It may have begun all the same: an agent can stop its keeper before that answers.
            found = await self._attach(start)
            if isinstance(found, Dead):
                message = f"no keeper: {str(error) or type(error).__name__}"
                raise BackendFailure(message, code="keeper_failed", retryable=True) from error
            keeper = found
        holding = self._holding(start, store_input, 2 if command.stdin else 1)
        return ProcessTurn(keeper, TurnOutput(start.folder, codec), codec, holding)

    async def adopt(self, start: TurnStart, store_input: StoreInput) -> ProcessTurn | None:
        """See `Backend.adopt`. Raises LeaseLost when a higher token has taken over."""
        found = await self._attach(start)
        holding = self._holding(start, store_input, 1)
        if isinstance(found, Dead) and (found.record is None or found.record.reason in _ABANDONED):
            await _clear(holding)
            return None
        last = max(start.inputs_sent, found.stdin_last if isinstance(found, KeeperClient) else 0)
        codec = self._program.codec(start)
        if isinstance(codec, Talking):
            codec.said(data for _, data in start.inputs)
        try:
            output = TurnOutput(start.folder, codec)
            await _replay(output, start)
            if isinstance(found, KeeperClient):
                await _send_again(found, start)
        except (OutputTruncated, OSError):
            await _end(found)
            await _clear(holding)
            return None
        turn = ProcessTurn(found, output, codec, replace(holding, next_input=last + 1))
        await turn.begin()
        if self._fenced_at(start) is not None:
            await turn.renew(start.held_until(), 0.0)  # its terminals too
        return turn

    def _fenced_at(self, start: TurnStart) -> float | None:
        held_until = start.held_until()
        return None if self._fence is None or held_until == math.inf else self._fence(held_until)

    async def _attach(self, start: TurnStart, folder: Path | None = None) -> KeeperClient | Dead:
        """Its last holder may have been gone for nearly as long as an agent lives without one: renew at once."""
        found = await attach(folder or start.folder, start.token, self._spawner.secrets, self._data_dir)
        if isinstance(found, KeeperClient) and (deadline := self._fenced_at(start)) is not None:
            with contextlib.suppress(KeeperGone):
                await found.renew(orphan_deadline=deadline)
        return found

    def _holding(self, start: TurnStart, store_input: StoreInput, next_input: int) -> Holding:
        program = self._program
        walls = Walls(sandbox=self._sandbox, start=start)
        return Holding(
            attach=partial(self._attach, start),
            store_input=store_input,
            next_input=next_input,
            fence=self._fence,
            refusal=walls.refusal,
            after=walls.after,
            hands=self._hands(start),
            patience_s=program.patience_s if isinstance(program, TalkingProgram) else 0.0,
        )

    def _hands(self, start: TurnStart) -> Hands | None:
        program = self._program
        if not isinstance(program, TalkingProgram):
            return None

        async def launch(folder: Path, wanted: OpenTerminal) -> KeeperClient:
            walls = Walls(sandbox=self._sandbox, start=start)
            if start.sandbox == "read_only" and not walls.stand:
                why = "without a sandbox no command is run for a run that may only read"
                raise BackendFailure(why, code="sandbox_unavailable", retryable=False)
            own = program.tool_environment(start)
            env = {**own, **wanted.environment}
            command = Command(argv=argv_of(wanted), env=env, cwd=start.workspace / (wanted.cwd or ""))
            confined = await walls.around_asked(command, path=own.get("PATH", ""))
            return await self._spawner.launch(self._spec(start, folder, command, confined), start.token)

        return Hands(start, self._files, Terminals(start.folder, launch, partial(self._attach, start)))

    def _spec(self, start: TurnStart, folder: Path, command: Command, confined: Confined) -> LaunchSpec:
        limits = start.limits
        return LaunchSpec(
            argv=confined.argv,
            env=dict(confined.env),
            wrappers=confined.wrappers,
            cwd=str(command.cwd),
            turn_folder=str(folder),
            out_path=str(folder / STDOUT),
            err_path=str(folder / STDERR),
            limits=Limits(
                deadline=self._clock.boot() + limits.timeout_s,
                orphan_deadline=self._fenced_at(start),
                output_bytes=limits.output_bytes,
                children=limits.children,
                grace_s=limits.grace_s,
            ),
            stdin=base64.b64encode(command.stdin).decode("ascii"),
            close_stdin=command.close_stdin,
            interrupt=command.interrupt,
        )


async def _replay(output: TurnOutput, start: TurnStart) -> None:
    """A long one in a thread: nobody else uses the codec yet."""
    if is_long(start.position):
        await asyncio.to_thread(output.replay, start.position)
    else:
        output.replay(start.position)


async def _clear(holding: Holding) -> None:
    """What the agent had started through us goes with it."""
    if holding.hands is not None:
        await holding.hands.terminals.end()


async def _end(found: KeeperClient | Dead) -> None:
    """Its output is not what was recorded: the turn cannot be continued."""
    if isinstance(found, KeeperClient):
        with contextlib.suppress(KeeperGone):
            await found.ladder()
            await found.ended()
            await found.release()
        await found.close()


async def _send_again(keeper: KeeperClient, start: TurnStart) -> None:
    """Stored messages that the last server did not get to send. The keeper leaves out those that it has."""
    for number, data in start.inputs:
        if number > keeper.stdin_last:
            with contextlib.suppress(KeeperGone):
                await keeper.send_stdin(number, data)
