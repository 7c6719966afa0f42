"""The desk of one turn: what its agent asks is judged, put to a person where need be, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Never

import structlog

from overnight.domain.action import CHANGING, Resolved
from overnight.domain.approval import Approval
from overnight.domain.event import Draft
from overnight.domain.request import Request
from overnight.domain.rule import Judgement, Rule, judge
from overnight.domain.run import Run, Turn
from overnight.domain.states import State
from overnight.domain.update import Asked
from overnight.engine import moves, questions
from overnight.engine.hold import Hold
from overnight.engine.recorder import Recorder
from overnight.engine.spare_memory import memory_is_short
from overnight.engine.tool_question import tool_question
from overnight.engine.turn_clock import TurnClock
from overnight.engine.waiting import within
from overnight.engine.workshop import Workshop
from overnight.errors import KeeperGone, NotFound
from overnight.ids import ApprovalId, RunId
from overnight.ports.backend import BackendTurn, Verdict
from overnight.ports.notifier import QUEUE, Notice
from overnight.ports.unit_of_work import Transaction

LOOK_S: Final = 5.0
"""How often a waiting agent is weighed against the machine's memory."""
PARK_MARGIN_S: Final = 60.0
"""What a keeper adds to the longest wait before it ends its agent by itself."""
MOST_AT_ONCE: Final = 16
"""Questions that are judged in one unit: a worker elsewhere asks its server for two facts about each."""
ASKING: Final = frozenset({State.RUNNING, State.PAUSING, State.BLOCKED})
"""States in which an agent is answered; one that is being cancelled is not."""
CHANGED: Final = (
    "What was allowed is no longer what would happen, so it was not done. Look again, then ask again."
)
NOBODY: Final = "Nobody is there to answer. Decide yourself, and write the question down for later."

log = structlog.get_logger(__name__)


class Desk:
    """Belongs to one turn of one hold. `clock` stands still while a person is waited for."""

    def __init__(
        self, shop: Workshop, hold: Hold, recorder: Recorder, *, run: Run, turn: Turn, agent: BackendTurn,
        workspace: Path, clock: TurnClock,
    ) -> None:  # fmt: skip
        self._shop = shop
        self._hold = hold
        self._recorder = recorder
        self._run = run
        self._turn = turn
        self._agent = agent
        self._workspace = workspace
        self._clock = clock
        self._tasks: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._park_at: float | None = None
        self._releasing = asyncio.Lock()
        self._done: set[int] = set()
        """Requests that were carried out."""

    async def open(self, tasks: asyncio.TaskGroup) -> None:
        """Begin; answers are given in `tasks`. What an earlier holder has left open is taken up."""
        self._tasks = tasks
        self._hold.desk = self
        asks = self._agent.open_asks()
        if not asks and self._run.state is not State.BLOCKED:
            return
        await self._see(self._run)
        await self._forget_all_but({ask.key for ask in asks})
        await self.asked(asks)
        for request in await self._shop.uow.read(lambda tx: tx.requests.pending(self._run.pk)):
            if request.kind == "decide":
                await self.release(request)

    def close(self) -> None:
        """The turn has ended: nothing can be answered any more."""
        self._hold.desk = None
        self._hold.blocked = False

    async def asked(self, asks: Sequence[Asked]) -> None:
        """Judge what the agent asks: answer it, or open an approval, in one transaction with the run's move."""
        for first in range(0, len(asks), MOST_AT_ONCE):
            await self._asked(asks[first : first + MOST_AT_ONCE])

    async def _asked(self, asks: Sequence[Asked]) -> None:
        found = await asyncio.to_thread(lambda: [self._resolved(ask) for ask in asks])

        def unit(tx: Transaction, run: Run, now_ms: int) -> tuple[Run, list[tuple[str, Verdict]]]:
            verdicts = []
            for ask, resolved in zip(asks, found, strict=True):
                verdict = self._judged(tx, run, ask, resolved, now_ms)
                if verdict is not None:
                    verdicts.append((ask.key, verdict))
                run = tx.runs.lock(run.pk)
            return run, verdicts

        run, verdicts = await self._recorder.write(unit)
        await self._see(run)
        for key, verdict in verdicts:
            self._start(key, verdict)

    async def withdrawn(self, key: str) -> None:
        """The agent no longer waits for `key`. One that we are stopping says that in vain: its question stays open."""
        if self._hold.wish is not None:
            return

        def unit(tx: Transaction, run: Run, now_ms: int) -> Run:
            approval = tx.approvals.of_request(run.pk, self._turn.number, self._turn.attempt, key)
            if approval is None or approval.state != "pending":
                return run
            return questions.withdrawn(tx, run, approval, now_ms)

        await self._see(await self._recorder.write(unit))

    async def _forget_all_but(self, open_keys: set[str]) -> None:
        """The former holder may have ended after it had read that a question is withdrawn, and before it said so."""

        def unit(tx: Transaction, run: Run, now_ms: int) -> Run:
            place = (self._turn.number, self._turn.attempt)
            for approval in tx.approvals.pending(run.pk):
                if (approval.turn, approval.attempt) == place and approval.request not in open_keys:
                    run = questions.withdrawn(tx, run, approval, now_ms)
            return run

        await self._see(await self._recorder.write(unit))

    async def release(self, request: Request) -> bool:
        """Pass a decision on, if it is still what was shown; False when it is not for the agent of this turn."""
        body = request.body
        if (body.get("turn"), body.get("attempt")) != (self._turn.number, self._turn.attempt):
            return False
        async with self._releasing:
            return request.pk in self._done or await self._release(request)

    async def _release(self, request: Request) -> bool:
        if self._hold.wish is not None:
            return False  # the agent is being stopped: the next turn begins with the decision
        key, approval_id = str(request.body.get("request")), ApprovalId(str(request.body["approval_id"]))
        verdict = verdict_of(request)
        if verdict.allow and verdict.option is None and await self._has_changed(approval_id):
            verdict = Verdict(allow=False, feedback=CHANGED)
        if verdict.allow and not await self._recorder.write(partial(_used_up, approval_id)):
            return False  # the run is being cancelled
        told = await self._tell(key, verdict)
        if not told and any(ask.key == key for ask in self._agent.open_asks()):
            await self._recorder.write(partial(_not_used, approval_id))
            return False  # the agent is gone: the next turn begins with the decision
        run = await self._recorder.write(partial(self._released, request, verdict))
        self._done.add(request.pk)
        await self._see(run)
        return True

    async def mind(self) -> Never:
        """Have the agent stopped once it has waited too long, or the machine runs out of memory. Until cancelled."""
        clock = self._shop.clock
        while True:
            self._changed.clear()
            park_at = self._park_at
            if park_at is None:
                await self._changed.wait()
                continue
            left = park_at - clock.boot()
            if left <= 0 or memory_is_short():
                log.info("run.parking", run=self._hold.run_id, reason="waited" if left <= 0 else "memory")
                self._hold.ask("park")
                await self._changed.wait()
            else:
                await within(clock, min(left, LOOK_S), self._changed.wait())

    def _judged(
        self, tx: Transaction, run: Run, ask: Asked, resolved: Resolved, now_ms: int
    ) -> Verdict | None:
        """The answer, or None when a person has been asked, or nothing can be answered any more."""
        if self._hold.wish is not None or run.state not in ASKING:
            return None
        known = tx.approvals.of_request(run.pk, self._turn.number, self._turn.attempt, ask.key)
        if known is not None:
            return Verdict(allow=False) if known.state == "cancelled" else None
        if ask.answers:
            return self._asked_a_question(tx, run, ask, resolved, now_ms)
        judgement = judge(
            resolved, policy=run.spec.approval_policy, workspace=str(self._workspace),
            rules=(*self._shop.policy.rules, *tx.approvals.rules(run.session_pk)), confined=confined(run),
        )  # fmt: skip
        if judgement.effect == "ask" and not self._used_allowance(tx, run, resolved, now_ms):
            self._open(tx, run, ask, resolved, now_ms)
            return None
        if isinstance(judgement.by, Rule):
            self._note_rule(tx, run, resolved, judgement, now_ms)
        return Verdict(allow=judgement.effect != "reject")

    def _asked_a_question(
        self, tx: Transaction, run: Run, ask: Asked, resolved: Resolved, now_ms: int
    ) -> Verdict | None:
        if run.spec.approval_policy != "autonomous":
            self._open(tx, run, ask, resolved, now_ms)
            return None
        text = self._recorder.hidden(ask.action.title)
        moves.note(tx, run, now_ms, Draft(type="question.asked", data={"text": text}))
        return Verdict(allow=False, feedback=NOBODY)

    def _open(self, tx: Transaction, run: Run, ask: Asked, resolved: Resolved, now_ms: int) -> None:
        question = tool_question(
            ask, resolved, redactor=self._recorder.redactor, sandbox=run.sandbox_effective, binding=confined(run),
            expires_s=lambda kind: self._shop.policy.expires_s(kind, run.spec.approvals),
        )  # fmt: skip
        questions.block(tx, run, questions.ask(tx, run, question, now_ms), now_ms)

    def _used_allowance(self, tx: Transaction, run: Run, resolved: Resolved, now_ms: int) -> bool:
        """Whether a person has allowed exactly this once, while the agent that had asked was gone."""
        earlier = tx.approvals.unused_allowance(
            run.pk, resolved.digest, turn=self._turn.number, attempt=self._turn.attempt
        )
        if earlier is None:
            return False
        tx.approvals.save(replace(earlier, used_at=now_ms))
        return True

    def _note_rule(
        self, tx: Transaction, run: Run, resolved: Resolved, judgement: Judgement, now_ms: int
    ) -> None:
        assert isinstance(judgement.by, Rule)  # noqa: S101 -- the caller has looked
        data = {
            "approval_id": None,
            "title": resolved.action.title,
            "digest": resolved.digest,
            "option": "reject_once" if judgement.effect == "reject" else "allow_once",
            "by": "rule",
            "rule": judgement.by.to_json(),
        }
        hidden = self._recorder.redactor.json(data)
        moves.note(tx, run, now_ms, Draft(type="approval.resolved", data=hidden))

    def _resolved(self, ask: Asked) -> Resolved:
        """Blocks on the disk."""
        action = ask.action
        hashed = action.kind in CHANGING
        places = self._shop.workspaces.places(self._workspace, action.whereabouts, hashed=hashed)
        return Resolved(action=action, places=places)

    async def _has_changed(self, approval_id: ApprovalId) -> bool:
        approval = await self._shop.uow.read(partial(_shown, self._hold.run_id, approval_id))
        action = approval.action
        if action is None:
            return False
        now = await asyncio.to_thread(self._resolved, Asked(key="", action=action))
        return now.digest != approval.digest

    def _released(self, request: Request, verdict: Verdict, tx: Transaction, run: Run, now_ms: int) -> Run:
        if verdict.feedback == CHANGED:
            approval_id = ApprovalId(str(request.body["approval_id"]))
            _used_up(approval_id, tx, run, now_ms)
            data = {"code": "action_changed", "message": f"{approval_id}: {CHANGED}", "retryable": True}
            moves.note(tx, run, now_ms, Draft(type="error.recorded", data=data))
        tx.requests.settle(request.pk, "answered", now_ms)
        return run

    def _start(self, key: str, verdict: Verdict) -> None:
        assert self._tasks is not None  # noqa: S101 -- opened before anything can be asked
        self._tasks.create_task(self._tell(key, verdict), name=f"answer {key}")

    async def _tell(self, key: str, verdict: Verdict) -> bool:
        try:
            return await self._agent.answer(key, verdict)
        except KeeperGone as error:
            log.warning("keeper.gone", run=self._hold.run_id, error=str(error))
            return False

    async def _see(self, run: Run) -> None:
        """The run has begun to wait for a person, or goes on: clocks, slots and the keeper follow."""
        blocked = run.state is State.BLOCKED
        if blocked == (self._park_at is not None):
            return
        boot = self._shop.clock.boot()
        if blocked:
            waited_s = questions.blocked_ms(run, self._shop.clock.wall_ms()) / 1000
            patience = max(0.0, self._shop.policy.park_after_s - waited_s)
            self._park_at = boot + patience
            deadline = boot + patience + self._clock.stop() + PARK_MARGIN_S
        else:
            self._park_at = None
            self._hold.forget("park")
            deadline = boot + self._clock.go_on()
        self._hold.blocked = blocked
        self._changed.set()
        self._shop.notifier.publish([Notice(topic=QUEUE)])
        try:
            await self._agent.extend(deadline)
        except KeeperGone as error:
            log.warning("keeper.gone", run=self._hold.run_id, error=str(error))


def _shown(run_id: RunId, approval_id: ApprovalId, tx: Transaction) -> Approval:
    run = tx.runs.get(run_id, None)
    approval = tx.approvals.get(approval_id, None)
    if approval.run_pk != run.pk:
        raise NotFound(f"no approval {approval_id}")
    return approval


def _used_up(approval_id: ApprovalId, tx: Transaction, run: Run, now_ms: int) -> bool:
    """Before the agent is told, so that what it does then is never covered a second time; False if it may not be told.

    Should everything end in between, a person is asked again.
    """
    if run.state not in ASKING:
        return False
    approval = tx.approvals.get(approval_id, None)
    if approval.used_at is None:
        tx.approvals.save(replace(approval, used_at=now_ms))
    return True


def _not_used(approval_id: ApprovalId, tx: Transaction, _run: Run, _now_ms: int) -> None:
    tx.approvals.save(replace(tx.approvals.get(approval_id, None), used_at=None))


def confined(run: Run) -> bool:
    """Whether a sandbox holds the agent to what it may do, so that a decision means something."""
    return run.sandbox_effective in {"read_only", "workspace_write"}


def verdict_of(request: Request) -> Verdict:
    """What a `decide` request tells the agent."""
    kind, feedback = request.body.get("option_kind"), str(request.body.get("feedback") or "")
    if kind == "answer":
        return Verdict(allow=True, option=str(request.body["option"]), feedback=feedback)
    return Verdict(allow=kind in {"allow_once", "allow_always"}, feedback=feedback)
