"""What people ask of a held run while it is carried out: acted on at once, not at the turn's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Never

import structlog

from overnight.domain.request import Request
from overnight.domain.run import Run
from overnight.domain.session import SessionMessage
from overnight.engine.hold import Hold
from overnight.engine.recorder import Recorder
from overnight.engine.waiting_messages import carried_in
from overnight.engine.workshop import Workshop
from overnight.errors import LeaseLost
from overnight.ports.notifier import requests_topic
from overnight.ports.unit_of_work import Transaction

log = structlog.get_logger(__name__)


class RequestFollower:
    """Reads the requests to one run, woken by their topic or the slow poll.

    The state has been moved by whoever asked; here the turn in progress is told. A steer that cannot reach the turn
    stays pending: the next turn begins with it.
    """

    def __init__(self, shop: Workshop, hold: Hold, recorder: Recorder) -> None:
        self._shop = shop
        self._hold = hold
        self._recorder = recorder
        self._queued: set[int] = set()
        """Steers that wait for the next turn."""

    async def follow(self) -> None:
        """Act on requests until cancelled, or the run is let go. Raises LeaseLost when the hold is lost."""
        try:
            await self._follow()
        except LeaseLost:
            if not self._hold.over:
                raise

    async def _follow(self) -> Never:
        run_pk = self._hold.run_pk
        subscription = self._shop.notifier.subscribe(requests_topic(run_pk))
        try:
            while True:
                for request in await self._shop.uow.read(lambda tx: tx.requests.pending(run_pk)):
                    if request.pk not in self._queued:
                        await self._act(request)
                await subscription.next(self._shop.timing.poll_s)
        finally:
            subscription.close()

    async def _act(self, request: Request) -> None:
        log.info("request.received", run=self._hold.run_id, kind=request.kind, by=request.actor)
        match request.kind:
            case "cancel":
                self._hold.ask("cancel")
            case "pause":
                self._pause(request.body)
            case "resume":
                self._hold.forget("pause")
                self._hold.stir()
            case "steer":
                await self._steer(request)
                return
            case "decide":
                await self._decide(request)
                return
        await self._settle(request, "done")

    def _pause(self, body: Mapping[str, object]) -> None:
        if body.get("when") == "now":
            self._hold.ask("pause")
        else:
            self._hold.stir()

    async def _decide(self, request: Request) -> None:
        """For the agent that has asked; the next turn begins with it where that one is gone."""
        desk = self._hold.desk
        if desk is not None and not await desk.release(request):
            self._queued.add(request.pk)

    async def _steer(self, request: Request) -> None:
        if request.pk in self._hold.carried:
            return  # a turn has begun with it since we read of it
        how = request.body.get("how")
        living = self._hold.living
        if how == "inject" and living is not None and await living.inject(text_of(request)):
            await self._recorder.write(lambda tx, run, now_ms: said(tx, run, request, now_ms, "injected"))
            return
        self._queued.add(request.pk)
        if how == "interrupt" or (how == "inject" and self._hold.interruptible):
            self._hold.steer(request.pk)

    async def _settle(self, request: Request, outcome: str) -> None:
        await self._recorder.write(lambda tx, _run, now_ms: tx.requests.settle(request.pk, outcome, now_ms))


def text_of(request: Request) -> str:
    """What a steer says, or how something was decided that an earlier turn's agent had asked."""
    if request.kind == "steer":
        return str(request.body.get("text", ""))
    body = request.body
    decided = "nobody decided in time, so it counts as" if body.get("expired") else "the decision is"
    text = f'You had asked: "{body.get("title")}". It was put to a person; {decided}: {body.get("label")}.'
    if body.get("option_kind") == "allow_once":
        text += " Exactly this may be done once without asking again."
    feedback = str(body.get("feedback") or "").strip()
    return f"{text}\n{feedback}" if feedback else text


def said(tx: Transaction, run: Run, request: Request, now_ms: int, outcome: str) -> None:
    """A steer, or a decision, has reached the agent: it is part of the session's history, and done."""
    message = SessionMessage(
        role="user", text=text_of(request), at=now_ms, run_id=run.id, turn=run.turn or None
    )
    tx.sessions.add_message(run.session_pk, message)
    carried_in(tx, run, request, now_ms)
    tx.requests.settle(request.pk, outcome, now_ms)


def steering(tx: Transaction, run: Run) -> tuple[Request, ...]:
    """The texts with which the next turn begins, oldest first."""
    return tuple(request for request in tx.requests.pending(run.pk) if request.kind in {"steer", "decide"})


def is_steered(tx: Transaction, run: Run) -> bool:
    """Whether somebody has said something that no turn has begun with yet."""
    return any(request.kind == "steer" for request in steering(tx, run))


def drop_requests(tx: Transaction, run: Run, now_ms: int) -> None:
    """The run has ended: whatever is still asked of it has become pointless."""
    for request in tx.requests.pending(run.pk):
        tx.requests.settle(request.pk, f"the run was {run.state}", now_ms)
