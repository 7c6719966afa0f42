"""One turn, live: what the agent says is recorded as it arrives, and what people ask is passed on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import structlog

from overnight.domain.event import Draft
from overnight.domain.run import Position, Run, Turn
from overnight.domain.update import (
    Asked,
    Delta,
    FileTouched,
    Message,
    PlanReported,
    Reasoning,
    SessionKnown,
    ToolCompleted,
    Update,
    Withdrawn,
)
from overnight.domain.values import Failure, Now
from overnight.engine.desk import Desk
from overnight.engine.hold import Hold, Wish
from overnight.engine.hosts import kept_on
from overnight.engine.inbox import Inbox
from overnight.engine.opening import timeout_s
from overnight.engine.questions import blocked_ms
from overnight.engine.recorder import Recorder
from overnight.engine.scene import Aide, Scene
from overnight.engine.settlement import elapsed_by_wall
from overnight.engine.turn_clock import TurnClock
from overnight.engine.turn_end import LastWords, TurnEnd
from overnight.engine.waiting import end, within
from overnight.engine.workshop import Workshop
from overnight.errors import KeeperGone, OvernightError
from overnight.ports.backend import BackendTurn, Batch
from overnight.ports.unit_of_work import Transaction

MOST_IN_ONE_UNIT: Final = 250
"""Updates after which a unit is written even though more are there."""
MOST_BYTES_IN_ONE_UNIT: Final = 4 * 1024 * 1024
"""The same by the output that they come from: a worker elsewhere sends a unit as one request."""
MOST_HELD_BACK: Final = 10_000
"""Events that wait for output that is not due yet."""
POSITION_S: Final = 0.5
"""How long a position without any event may stay unrecorded."""
NOW_S: Final = 0.5
"""How often at most the live line of a run is renewed."""
OVERDUE_S: Final = 2.0
"""How long after its deadline and grace a turn is ended from here, should its keeper not have done so."""

log = structlog.get_logger(__name__)


class TurnLoop:
    """Records one turn until its agent is gone and all of its output has been read."""

    def __init__(
        self, shop: Workshop, hold: Hold, recorder: Recorder, *, run: Run, turn: Turn, agent: BackendTurn,
        scene: Scene,
    ) -> None:  # fmt: skip
        self._shop = shop
        self._hold = hold
        self._recorder = recorder
        self._run = run
        self._turn = turn
        self._agent = agent
        self._scene = scene
        self._interpreter = scene.interpreter
        self._inbox = Inbox()
        self._drafts: list[Draft] = []
        self._items = 0
        self._position = turn.position
        self._recorded = turn.position
        self._recorded_at = shop.clock.boot()
        self._state: Mapping[str, object] | None = None
        self._shown: Now | None = run.now
        self._shown_at = 0.0
        self._granted: Wish | None = None
        self._failure: Failure | None = None
        self._asks: list[Asked | Withdrawn] = []
        self._final: Batch | None = None
        self._clock = TurnClock(shop.clock, _left_s(run, turn, shop.clock.wall_ms()))
        self._desk = Desk(
            shop,
            hold,
            recorder,
            run=run,
            turn=turn,
            agent=agent,
            workspace=scene.workspace,
            clock=self._clock,
        )

    async def run(self) -> TurnEnd:
        """Until the turn has ended and everything has been recorded. Raises LeaseLost (in a group) if the hold ends."""
        async with asyncio.TaskGroup() as group:
            aides = [group.create_task(self._spare(aide)) for aide in self._scene.aides()]
            aides += [group.create_task(self._obey()), group.create_task(self._mind_deadline())]
            aides.append(group.create_task(self._desk.mind()))
            await self._desk.open(group)
            group.create_task(self._inbox.fill(self._agent))
            try:
                await self._record()
            finally:
                self._desk.close()
            await end(*aides)
        ended = None if self._inbox.cut else self._agent.ended()
        return TurnEnd(ended=ended, granted=self._granted, failure=self._failure, last=self._last_words())

    def _last_words(self) -> LastWords:
        """All that is not recorded yet."""
        boot = self._shop.clock.boot()
        if self._final is not None:
            for update in self._final.updates:
                self._feed(update, boot)
            self._position = self._final.position
        self._drafts += self._interpreter.finish(boot)
        return LastWords(
            drafts=self._recorder.redacted(self._drafts), position=self._position, items=self._items,
            state=self._state,
        )  # fmt: skip

    def add(self, drafts: Sequence[Draft]) -> None:
        """Record these with what comes next; for those who watch beside."""
        self._drafts += drafts
        self._inbox.stir()

    async def _spare(self, aide: Aide) -> None:
        """What watches beside may fail without the turn."""
        try:
            await aide(self.add)
        except (OvernightError, OSError) as error:
            log.warning("watch.failed", run=self._hold.run_id, error=str(error))

    async def _record(self) -> None:
        while not self._inbox.over:
            await self._news()
            self._take()
            if self._interpreter.due() is None or self._flushed():
                await self._write()
            await self._ask()

    async def _ask(self) -> None:
        """What the agent waits for goes to the desk once all that came before it is written, and so is its position.

        Whoever adopts the turn then knows the question before anything else is read: a decision that has been taken
        meanwhile finds it, and what is not open there any more was withdrawn or answered.
        """
        asks, self._asks = self._asks, []
        for withdrawn, group in groupby(asks, key=lambda update: isinstance(update, Withdrawn)):
            if withdrawn:
                for update in group:
                    await self._desk.withdrawn(update.key)
            else:
                await self._desk.asked([update for update in group if isinstance(update, Asked)])

    async def _news(self) -> None:
        """Wait for updates, or until held-back output or an unrecorded position is due."""
        due = self._interpreter.due()
        if due is None and self._position != self._recorded:
            due = self._recorded_at + POSITION_S
        if due is None:
            await self._inbox.news()
        elif (rest := due - self._shop.clock.boot()) > 0:
            await within(self._shop.clock, rest, self._inbox.news())

    def _take(self) -> None:
        now = self._shop.clock.boot()
        taken = 0
        while taken < MOST_IN_ONE_UNIT and not self._has_much() and (batch := self._inbox.take()):
            taken += len(batch.updates)
            if batch.final:
                self._final = batch
                return
            for update in batch.updates:
                self._feed(update, now)
            self._position = batch.position

    def _feed(self, update: Update, now: float) -> None:
        if isinstance(update, Delta):
            self._scene.deltas.publish(update)
            return
        if isinstance(update, Asked | Withdrawn):
            self._asks.append(update)
            return
        if isinstance(update, SessionKnown):
            self._state = update.state
        self._items += _is_item(update)
        self._drafts += self._interpreter.feed(update, now)

    def _has_much(self) -> bool:
        """Whether more than enough for a unit was taken since the last one."""
        at, before = self._position, self._recorded
        return at.stdout + at.stderr - before.stdout - before.stderr >= MOST_BYTES_IN_ONE_UNIT

    def _flushed(self) -> bool:
        """Whether nothing is held back any more.

        A position may only be recorded together with everything that came before it, so events wait for the output
        that was held back, unless too many of them would gather, or the agent asks.
        """
        now = self._shop.clock.boot()
        due = self._interpreter.due()
        can_wait = not (self._asks or self._has_much()) and len(self._drafts) < MOST_HELD_BACK
        if due is not None and now < due and can_wait:
            return False
        self._drafts += self._interpreter.flush(now)
        return True

    async def _write(self) -> None:
        boot = self._shop.clock.boot()
        now = self._now_to_show(boot)
        due = (
            self._inbox.over or bool(self._asks) or self._has_much() or boot >= self._recorded_at + POSITION_S
        )
        moved = due and self._position != self._recorded
        if not (self._drafts or self._state is not None or now is not self._shown or moved):
            return
        progress = _Progress(
            drafts=self._recorder.redacted(self._drafts), position=self._position, items=self._items,
            state=self._state, now=now, show=now is not self._shown, turn=self._turn,
        )  # fmt: skip
        self._drafts, self._state, self._items = [], None, 0
        last_seq = await self._recorder.write(progress.record)
        self._recorded, self._recorded_at = progress.position, boot
        if progress.show:
            self._shown, self._shown_at = now, boot
        if last_seq >= self._run.limits.events and self._failure is None:
            await self._over_the_event_limit()

    def _now_to_show(self, boot: float) -> Now | None:
        now = self._interpreter.now
        if now is None or now == self._shown or boot < self._shown_at + NOW_S:
            return self._shown
        return now

    async def _obey(self) -> None:
        """End the turn early for whatever is asked; a wish that outranks the one granted is granted too."""
        while True:
            wish = self._hold.wish
            if wish is not None and wish != self._granted:
                self._granted = wish
                await self._stop(wish)
            await self._hold.stirred()

    async def _mind_deadline(self) -> None:
        """The keeper ends the turn by its own clock. Should it not, we do; wall clocks have no say in that."""
        await self._clock.out(self._shop.timing.grace_s + OVERDUE_S)
        await self._stop("deadline")

    async def _over_the_event_limit(self) -> None:
        message = f"the run has recorded {self._run.limits.events} events"
        self._failure = Failure(code="event_limit", message=message)
        await self._stop("event_limit")

    async def _stop(self, reason: str) -> None:
        log.info("turn.stopping", run=self._hold.run_id, turn=self._turn.number, reason=reason)
        try:
            await self._agent.stop(reason=reason, interrupt=self._hold.interruptible)
        except KeeperGone as error:
            # Its spawner sweeps after it; the end of the updates tells when.
            log.warning("keeper.gone", run=self._hold.run_id, error=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """What one unit records: events, the position after them, and what else has changed."""

    turn: Turn
    drafts: Sequence[Draft]
    position: Position
    items: int
    state: Mapping[str, object] | None
    now: Now | None
    show: bool

    def record(self, tx: Transaction, run: Run, now_ms: int) -> int:
        """The number of the run's last event after it."""
        turn = self.turn
        tx.turns.advance(run.pk, turn.number, turn.attempt, self.position, self.items)
        if self.state is not None:
            tx.sessions.save_backend_state(run.session_pk, turn.backend, kept_on(run.host_id, self.state))
        if self.show:
            tx.runs.save(replace(run, now=self.now, updated_at=now_ms))
        if not self.drafts:
            return run.last_seq
        return tx.events.append(run.pk, [_of(turn, draft) for draft in self.drafts], now_ms)[-1].seq


def _left_s(run: Run, turn: Turn, now_ms: int) -> float:
    """What the turn may still take. Never less than a minute: the keeper's own clock is the one that counts."""
    worked_ms = elapsed_by_wall(run, turn, now_ms) - turn.blocked_ms - blocked_ms(run, now_ms)
    return max(min(60.0, timeout_s(run)), timeout_s(run) - worked_ms / 1000)


def _is_item(update: Update) -> bool:
    return isinstance(update, Message | Reasoning | ToolCompleted | PlanReported | FileTouched) and not (
        isinstance(update, FileTouched) and update.kind == "read"
    )


def _of(turn: Turn, draft: Draft) -> Draft:
    return replace(draft, turn=turn.number, attempt=turn.attempt)
