"""Taking up what a former hold has left: a turn that lives, one that died, or nothing in between two turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from overnight.domain.run import Run, Turn
from overnight.domain.states import State, TurnState
from overnight.engine.assembly import read_prompt
from overnight.engine.kit import Kit, Living
from overnight.engine.next_step import Step, TurnResult
from overnight.engine.opening import begun
from overnight.engine.scene import Scene, remembered
from overnight.engine.settlement import Closing, recovered, settle
from overnight.ports.backend import BackendTurn, Stopped
from overnight.ports.unit_of_work import Transaction

SWEPT = Stopped(steps=("sweep",), survivors=0)
"""What is known of an agent whose keeper is gone: the backend has swept up before it says so."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    run: Run
    turn: Turn | None
    """The turn in progress, if there was one."""
    inputs: tuple[tuple[int, bytes], ...]
    """Everything stored for its stdin, sent or not."""


class Adoption:
    """Goes on with a run under a new token, for `reason`."""

    def __init__(self, kit: Kit, reason: str) -> None:
        self._kit = kit
        self._reason = reason

    async def take_up(self) -> Living | Step | None:
        """The living turn; or, when it is dead, the step after it; None where there was no turn.

        Raises Released when the run was let go.
        """
        left = await self._kit.shop.uow.read(self._find)
        if left.turn is None:
            await self._kit.recorder.write(self._between_turns)
            return None
        turn = left.turn
        prepared = await self._kit.preparation.place(left.run, turn.backend)
        folder = self._kit.shop.folders.data_dir / turn.folder
        prompt = await asyncio.to_thread(read_prompt, folder)
        sent = left.inputs[-1][0] if left.inputs else 0
        start = replace(self._kit.start_of(left.run, turn, prepared, prompt, sent), inputs=left.inputs)
        agent = await prepared.backend.adopt(start, self._kit.input_store(turn))
        if agent is None:
            closing = self._abandoned()
            step: Step | None = await self._kit.recorder.write(
                lambda tx, run, now_ms: settle(
                    tx, self._ours(run), now_ms, closing, self._kit.hold.wish, self._kit.rules
                )
            )
            self._kit.count(turn, closing)
            if step is None:
                raise self._kit.let_go()
            return step
        self._kit.hold.living = agent
        run, turn = await self._kit.recorder.write(
            lambda tx, run, now_ms: self._adopted(tx, run, turn, agent, now_ms)
        )
        log.info("turn.adopted", turn=turn.number, attempt=turn.attempt, pid=agent.pid)
        if run.state is State.CANCELLING:
            self._kit.hold.ask("cancel")
        memory = await self._kit.shop.uow.read(lambda tx: remembered(tx, turn))
        memory = replace(memory, unrecorded_s=self._unrecorded_s(left.run))
        scene = Scene(self._kit.shop, self._kit.recorder, run, turn, prepared, memory)
        return Living(run=run, turn=turn, backend_turn=agent, prepared=prepared, scene=scene)

    def _find(self, tx: Transaction) -> _Left:
        run = tx.runs.get(self._kit.hold.run_id, None)
        turn = tx.turns.last(run.pk)
        if turn is None or turn.state is not TurnState.STARTED:
            return _Left(run=run, turn=None, inputs=())
        inputs = tx.turns.inputs(run.pk, turn.number, turn.attempt, 0)
        return _Left(run=run, turn=turn, inputs=inputs)

    def _unrecorded_s(self, run: Run) -> float:
        """Time since the run's last event; wall clocks may jump, so it is good for a rate and for nothing else."""
        since = run.last_event_at or run.created_at
        return max(0.0, (self._kit.shop.clock.wall_ms() - since) / 1000)

    def _between_turns(self, tx: Transaction, run: Run, now_ms: int) -> None:
        recovered(tx, self._ours(run), self._reason, now_ms, adopted=False)

    def _adopted(
        self, tx: Transaction, run: Run, turn: Turn, agent: BackendTurn, now_ms: int
    ) -> tuple[Run, Turn]:
        run = recovered(tx, replace(self._ours(run), pid=agent.pid), self._reason, now_ms, adopted=True)
        if turn.first_seq == 0:
            turn = begun(tx, run, turn, agent.pid, now_ms)
        return run, turn

    def _abandoned(self) -> Closing:
        return Closing(
            result=TurnResult(abandoned=True), why_abandoned="its agent and its keeper are gone", stopped=SWEPT,
            recovery=self._reason,
        )  # fmt: skip

    def _ours(self, run: Run) -> Run:
        return replace(run, worker=self._kit.shop.worker.id)
