"""The executor carries out one held run: prepare, assemble, spawn, stream, settle, decide, and again, or release."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog

from overnight.domain.run import Run, Turn
from overnight.domain.states import State
from overnight.domain.values import Completion, Failure
from overnight.engine.adoption import Adoption
from overnight.engine.assembly import Assembly
from overnight.engine.boundary import give_back_until, let_go
from overnight.engine.conversation import Outdated
from overnight.engine.follow_requests import RequestFollower
from overnight.engine.hold import Hold
from overnight.engine.kit import Kit, Living, Released
from overnight.engine.next_step import Again, Complete, Fail, Fallback, NextTurn, Step, TurnResult
from overnight.engine.opening import begun
from overnight.engine.preparation import Prepared, WorkspaceTaken
from overnight.engine.scene import Scene
from overnight.engine.settlement import Closing, apply, settle
from overnight.engine.turn_end import TurnEnd
from overnight.engine.turn_loop import TurnLoop
from overnight.engine.waiting import end, unless, within
from overnight.engine.workshop import Workshop
from overnight.errors import (
    BackendFailure,
    KeeperGone,
    OvernightError,
    StopFilePresent,
    UnknownBackend,
    WorkspaceRefused,
)
from overnight.ports.unit_of_work import Transaction

FRESH: Final = 1.25
"""Renewals that a lease may be old when a turn begins. While they fail none does: its agent would be ended at once."""
SHORT_REST_S: Final = 5.0
"""Shorter rests keep the hold; longer ones give the slot to somebody else."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an executor ended. Without trouble the run was let go in order."""

    trouble: Exception | None = None
    due_at: int | None = None
    """Wall milliseconds at which the run that was given back may be taken again."""


class Executor:
    """Carries out one hold of one run. `adopting`: why a held run was taken over, None for a claimed one."""

    def __init__(self, shop: Workshop, hold: Hold, *, adopting: str | None) -> None:
        self._shop = shop
        self._hold = hold
        self._adopting = adopting

    async def run(self) -> Outcome:
        """Until the run is let go, or the hold is lost; an agent that still lives is then left alone."""
        try:
            kit = await Kit.gather(self._shop, self._hold)
            return await _Pipeline(kit, self._adopting).attended()
        except Exception as trouble:  # the edge of a service loop: the worker decides what comes next
            cause = _cause(trouble)
            log.warning("run.let_go", error=repr(cause), exc_info=not isinstance(cause, OvernightError))
            return Outcome(trouble=cause)
        finally:
            if self._hold.living is not None:
                await self._hold.living.leave()


class _Pipeline:
    """Turn after turn, for as long as the hold lasts."""

    def __init__(self, kit: Kit, adopting: str | None) -> None:
        self._kit = kit
        self._shop = kit.shop
        self._hold = kit.hold
        self._adopting = adopting
        self._assembly = Assembly(kit.shop)
        claimed = adopting is None and kit.run.state is State.RUNNING
        self._fresh = kit.run if claimed else None

    async def attended(self) -> Outcome:
        """Carry out the run, with its requests followed beside."""
        follower = RequestFollower(self._shop, self._hold, self._kit.recorder)
        async with asyncio.TaskGroup() as group:
            aides = [group.create_task(follower.follow()), group.create_task(self._hold.until_lost())]
            outcome = await self._carry_out()
            await end(*aides)
        return outcome

    async def _carry_out(self) -> Outcome:
        try:
            living = await self._take_up()
            while True:
                living = living or await self._begin()
                await self._rest(await self._settle(living, await self._stream(living)))
                living = None
        except Released as released:
            return Outcome(due_at=released.due_at)

    async def _take_up(self) -> Living | None:
        if self._adopting is None:
            return None
        left = await Adoption(self._kit, self._adopting).take_up()
        if left is None or isinstance(left, Living):
            return left
        await self._rest(left)
        return None

    # prepare, preflight, assemble, spawn

    async def _begin(self) -> Living:
        """The next turn, under way."""
        while True:
            run = self._just_claimed() or await self._current()
            try:
                prepared = await self._prepared(run)
                await self._heed_stop_file(run, prepared)
                living = await self._spawn(run, prepared)
            except Outdated:
                continue
            except (WorkspaceRefused, UnknownBackend, BackendFailure) as refusal:
                await self._stumbled(refusal)
                await self._refuse(refusal)
            else:
                if living is not None:
                    return living

    def _just_claimed(self) -> Run | None:
        """The run, once, where it has been read since its claim: whether it may begin is asked again as it begins."""
        fresh, self._fresh = self._fresh, None
        return fresh if self._hold.wish is None else None

    async def _current(self) -> Run:
        """The run as it is now, unless it is to be let go."""

        def unit(tx: Transaction, run: Run, now_ms: int) -> Run | None:
            return None if let_go(tx, run, self._hold.wish, now_ms) else run

        return self._kit.held(await self._kit.recorder.write(unit))

    async def _prepared(self, run: Run) -> Prepared:
        """Made ready, however long it takes; what is asked meanwhile comes first."""
        while True:
            try:
                prepared = await unless(self._hold.stirred(), self._kit.preparation.prepare(run))
            except WorkspaceTaken:
                raise self._kit.let_go() from None
            if prepared is not None:
                return prepared
            await self._current()

    async def _heed_stop_file(self, run: Run, prepared: Prepared) -> None:
        """The stop file between two turns ends the run; before the first turn it can only be left over from before."""
        stop_file = run.spec.completion.stop_file
        if not prepared.stop or stop_file is None:
            return
        message = (
            f"{stop_file} was in the workspace before the run began: remove it, or name another stop file"
        )
        step: Step = Fail(failure=Failure(code=StopFilePresent.code, message=message))
        if run.turn > 0:
            step = Complete(completion=Completion(by="stop_file"))
            await asyncio.to_thread(self._kit.preparation.take_stop_file, run, prepared.workspace)
        left = await self._kit.recorder.write(
            lambda tx, run, now_ms: apply(tx, run, step, self._hold.wish, now_ms, self._kit.rules)
        )
        self._kit.held(left)

    async def _spawn(self, run: Run, prepared: Prepared) -> Living | None:
        """The agent at work; None when it could not be started and the next step is another try."""
        await self._hold.fresh(self._shop.clock, FRESH * self._shop.timing.renew_s)
        opening, prompt = await self._assembly.assemble(run, prepared)
        run, turn = self._kit.held(
            await self._kit.recorder.write(
                lambda tx, run, now_ms: opening.open(tx, run, now_ms, self._hold.wish)
            )
        )
        self._hold.carry(request.pk for request in opening.steers)
        start = self._kit.start_of(run, turn, prepared, prompt)
        try:
            agent = await prepared.backend.start(start, self._kit.input_store(turn))
        except BackendFailure as refusal:
            await self._stumbled(refusal)
            await self._rest(await self._close_unstarted(turn, refusal))
            return None
        self._hold.living = agent
        turn = await self._kit.recorder.write(lambda tx, run, now_ms: begun(tx, run, turn, agent.pid, now_ms))
        log.info("turn.started", turn=turn.number, attempt=turn.attempt, backend=turn.backend, pid=agent.pid)
        scene = Scene(self._shop, self._kit.recorder, run, turn, prepared)
        return Living(run=run, turn=turn, backend_turn=agent, prepared=prepared, scene=scene)

    async def _stumbled(self, refusal: OvernightError) -> None:
        """A workspace is the run's own affair; all else that lets nothing begin says something of this worker."""
        if isinstance(refusal, BackendFailure):
            await self._shop.conduct.stumbled(refusal.failure_code)

    async def _refuse(self, refusal: OvernightError) -> None:
        """No turn can begin: go to the next fallback, or end the run."""
        failure = self._kit.recorder.hidden_failure(_failure(refusal))

        def unit(tx: Transaction, run: Run, now_ms: int) -> Step | None:
            more = run.fallback < len(run.spec.fallback) and not isinstance(refusal, WorkspaceRefused)
            step = Fallback(index=run.fallback + 1) if more else Fail(failure=failure)
            return apply(tx, run, step, self._hold.wish, now_ms, self._kit.rules)

        self._kit.held(await self._kit.recorder.write(unit))

    async def _close_unstarted(self, turn: Turn, refusal: BackendFailure) -> Step:
        failure = self._kit.recorder.hidden_failure(_failure(refusal))
        closing = Closing(result=TurnResult(failure=failure))

        def unit(tx: Transaction, run: Run, now_ms: int) -> Step | None:
            begun(tx, run, turn, None, now_ms)
            return settle(tx, run, now_ms, closing, self._hold.wish, self._kit.rules)

        step: Step | None = await self._kit.recorder.write(unit)
        self._kit.count(turn, closing)
        if step is None:
            raise self._kit.let_go()
        return step

    # stream, settle, decide

    async def _stream(self, living: Living) -> TurnEnd:
        await self._shop.conduct.went_well()
        self._hold.interruptible = living.prepared.backend.capabilities.interrupt
        loop = TurnLoop(
            self._shop,
            self._hold,
            self._kit.recorder,
            run=living.run,
            turn=living.turn,
            agent=living.backend_turn,
            scene=living.scene,
        )
        return await loop.run()

    async def _settle(self, living: Living, ended: TurnEnd) -> Step:
        closing = await living.scene.close(ended)
        step: Step | None = await self._kit.recorder.write(
            lambda tx, run, now_ms: settle(tx, run, now_ms, closing, self._hold.wish, self._kit.rules)
        )
        self._kit.count(living.turn, closing)
        self._hold.living = None
        self._hold.over = step is None
        log.info("turn.settled", turn=living.turn.number, step=type(step).__name__ if step else "released")
        self._hold.forget("park", "steer", "pause")
        try:
            await living.backend_turn.release()
        except KeeperGone:
            log.info("keeper.gone", turn=living.turn.number)
        if step is None:
            raise self._kit.let_go()
        return step

    async def _rest(self, step: Step) -> None:
        """Let the time until the next turn pass: shortly in the hold, longer without it."""
        rest_s = step.rest_s if isinstance(step, Again | NextTurn) else 0.0
        if rest_s > SHORT_REST_S:
            await self._give_back(rest_s, "back_off" if isinstance(step, Again) else "loop_delay")
        clock = self._shop.clock
        until = clock.boot() + rest_s
        while (left := until - clock.boot()) > 0 and not await self._asked():
            await within(clock, left, self._hold.stirred())

    async def _asked(self) -> bool:
        """Whether something is to be done before the rest is over."""
        run = await self._shop.uow.read(lambda tx: tx.runs.get(self._hold.run_id, None))
        return self._hold.wish is not None or run.state is not State.RUNNING

    async def _give_back(self, rest_s: float, why: str) -> NoReturn:
        def unit(tx: Transaction, run: Run, now_ms: int) -> int | None:
            if let_go(tx, run, self._hold.wish, now_ms):
                return None
            due_at = now_ms + round(rest_s * 1000)
            give_back_until(tx, run, why, due_at, now_ms)
            return due_at

        raise self._kit.let_go(await self._kit.recorder.write(unit))


def _failure(refusal: OvernightError) -> Failure:
    if isinstance(refusal, BackendFailure):
        return Failure(code=refusal.failure_code, message=refusal.detail, retryable=refusal.retryable)
    return Failure(code=refusal.code, message=refusal.detail)


def _cause(trouble: Exception) -> Exception:
    """The one failure that ended a group of tasks; the others were only cancelled because of it."""
    while isinstance(trouble, ExceptionGroup):
        trouble = trouble.exceptions[0]
    return trouble
