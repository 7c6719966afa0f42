"""A turn that runs under a keeper, as the engine sees it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from overnight.backends.process.adoption import Dead
from overnight.backends.process.channel import Refused
from overnight.backends.process.dialogue import Dialogue
from overnight.backends.process.framing import OutputTruncated
from overnight.backends.process.hands import Hands
from overnight.backends.process.keeper_client import KeeperClient, KeeperView
from overnight.backends.process.minder import Minder
from overnight.backends.process.output import TurnOutput
from overnight.backends.process.program import Codec, Exit
from overnight.backends.process.talk import Talking
from overnight.domain.update import Asked, TurnOutcome, Update
from overnight.domain.values import Failure
from overnight.errors import KeeperGone, LeaseLost
from overnight.keeper_protocol import ExitRecord, Interrupt, Reason
from overnight.ports.backend import Batch, Ended, Stopped, StoreInput, Verdict

Cause = Literal["exit", "stopped", "deadline", "output_limit", "children_limit", "fenced"]
Fence = Callable[[float], float]
"""From the boot-clock second until which the hold is good to the second at which a keeper begins to end its agent."""

_FAILURES: Final[dict[Reason, Failure]] = {
    "deadline": Failure(code="turn_timeout", message="the turn took longer than it may", retryable=True),
    "output_limit": Failure(code="output_limit", message="the agent wrote more output than it may"),
    "children_limit": Failure(code="children_limit", message="the agent started more processes than it may"),
    "fenced": Failure(
        code="fenced", message="no worker renewed its hold of the turn in time", retryable=True
    ),
    "terminated": Failure(
        code="keeper_terminated", message="the turn's keeper was told to end", retryable=True
    ),
    "never_started": Failure(code="keeper_lost", message="the turn was never started", retryable=True),
    "keeper_lost": Failure(code="keeper_lost", message="the turn's keeper was killed", retryable=True),
}
_CAUSES: Final[dict[Reason, Cause]] = {
    "stopped": "stopped",
    "deadline": "deadline",
    "output_limit": "output_limit",
    "children_limit": "children_limit",
    "fenced": "fenced",
}

_SILENT: Final = Failure(
    code="agent_silent", message="the agent did not get as far as taking its prompt", retryable=True
)
_GIVEN_UP: Final = frozenset({"cancel", "event_limit"})
"""Reasons to stop after which nobody waits for the rest of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a turn needs besides its keeper."""

    attach: Callable[[], Awaitable[KeeperClient | Dead]]
    """Reaches the keeper again after a lost connection, under the same token."""
    store_input: StoreInput
    next_input: int
    fence: Fence | None
    """None: nobody else could take the turn over, so the keeper need not fence itself."""
    refusal: Callable[[ExitRecord], Failure | None] = lambda _: None
    """Why the agent was never started although its process was: its sandbox could not be made."""
    after: Callable[[], tuple[Update, ...]] = tuple
    """What is left to say when everything has ended. Blocks on the disk."""
    hands: Hands | None = None
    """For a codec that talks back."""
    patience_s: float = 5.0
    """See `TalkingProgram.patience_s`."""


class ProcessTurn:
    """See `BackendTurn`. Made by `ProcessBackend`."""

    def __init__(
        self, keeper: KeeperClient | Dead, output: TurnOutput, codec: Codec, holding: Holding
    ) -> None:
        self._keeper: KeeperClient | None = keeper if isinstance(keeper, KeeperClient) else None
        self._dead: Dead | None = None if isinstance(keeper, KeeperClient) else keeper
        self._output = output
        self._codec = codec
        self._holding = holding
        self._next_input = holding.next_input
        self._inputs = asyncio.Lock()
        self._unsent: deque[tuple[int, bytes]] = deque()
        """Stored, but not yet taken by the keeper: sent before the next one, or when the connection is back."""
        self._left = asyncio.Event()
        self._ended: Ended | None = None
        self._talk: Dialogue | None = None
        if isinstance(codec, Talking) and holding.hands is not None:
            self._talk = Dialogue(codec, holding.hands, self._deliver)
        self._minder: Minder | None = None
        if self._talk is not None:
            self._minder = Minder(self._talk, holding.patience_s, self._end)
        self._cut_short = False
        """Ended before it had answered: what it says after that is no result."""

    @property
    def pid(self) -> int | None:
        """See `BackendTurn.pid`."""
        return self._keeper.identity.agent_pid if self._keeper is not None else None

    async def begin(self) -> None:
        """After an adoption: look again at what the agent has asked."""
        if self._talk is not None:
            await self._talk.begin()

    async def batches(self) -> AsyncIterator[Batch]:
        """See `BackendTurn.batches`. Raises LeaseLost when a higher token has taken over."""
        try:
            async for stdout, stderr in self._sizes():
                await self._go_on()
                while self._output.behind(stdout, stderr) and not self._left.is_set():
                    yield await self._attended(self._output.batch(stdout, stderr))
                    await asyncio.sleep(0)
                await self._dismiss_when_over()
            if not self._left.is_set():
                last = await self._finish()
                said = await asyncio.to_thread(self._holding.after)
                yield replace(last, updates=(*last.updates, *said), final=True)
        except OutputTruncated as error:
            await self._give_up(Failure(code=error.code, message=error.detail))
        finally:
            self._rest()
            self._output.close()

    def ended(self) -> Ended:
        """See `BackendTurn.ended`."""
        if self._ended is None:
            raise RuntimeError("the turn has not ended, or was left")
        return self._ended

    async def renew(self, sent_at: float, lease_s: float) -> None:
        """See `BackendTurn.renew`."""
        if self._keeper is None or self._left.is_set():
            return
        fence = self._holding.fence
        limits = {} if fence is None else {"orphan_deadline": fence(sent_at + lease_s)}
        with contextlib.suppress(KeeperGone):  # its end is found out by whoever reads
            await self._keeper.renew(**limits)
        if self._talk is not None and limits:
            await self._talk.renew(**limits)

    def open_asks(self) -> tuple[Asked, ...]:
        """See `BackendTurn.open_asks`."""
        return self._talk.asks() if self._talk is not None else ()

    async def answer(self, key: str, verdict: Verdict) -> bool:
        """See `BackendTurn.answer`."""
        return self._talk is not None and await self._talk.answer(key, verdict)

    async def extend(self, deadline: float) -> None:
        """See `BackendTurn.extend`. The end of a keeper that is gone is found out by whoever reads."""
        if self._keeper is not None and not self._left.is_set():
            with contextlib.suppress(KeeperGone):
                await self._keeper.renew(deadline=deadline)
            if self._talk is not None:
                await self._talk.renew(deadline=deadline)

    async def inject(self, text: str) -> bool:
        """See `BackendTurn.inject`."""
        data = self._codec.inject(text)
        return data is not None and await self._deliver(data)

    async def stop(self, *, reason: str, interrupt: bool) -> None:
        """See `BackendTurn.stop`. Raises KeeperGone when the keeper does not answer: then `batches` finds out why."""
        self._output.hurried = self._output.hurried or reason in _GIVEN_UP
        self._cut_short = self._cut_short or (self._talk is not None and not self._talk.over)
        farewell = self._talk.farewell() if self._talk is not None else b""
        if self._keeper is None or self._left.is_set():
            return
        named: Reason = "deadline" if reason == "deadline" else "fenced" if reason == "fenced" else "stopped"
        first: Interrupt | Literal[True] | None = True if interrupt else None
        if self._talk is not None:
            said = base64.b64encode(farewell).decode("ascii")
            first = Interrupt(data=said) if interrupt and farewell else None
        await self._keeper.ladder(named, interrupt=first)
        if self._talk is not None:
            await self._talk.stop()

    async def release(self) -> None:
        """See `BackendTurn.release`."""
        if self._keeper is not None and not self._left.is_set():
            with contextlib.suppress(KeeperGone, LeaseLost):
                await self._keeper.release()
        await self.leave()

    async def leave(self) -> None:
        """See `BackendTurn.leave`."""
        self._left.set()
        self._rest()
        if self._talk is not None:
            await self._talk.leave()
        if self._keeper is not None:
            await self._keeper.close()

    async def _sizes(self) -> AsyncIterator[tuple[int, int]]:
        """What may be read, whenever there is more of it, up to the end."""
        seen: KeeperView | None = None
        while (keeper := self._keeper) is not None and not self._left.is_set():
            seen = keeper.view if seen is None else await keeper.changed(seen)
            if seen.link == "superseded":
                raise LeaseLost(f"token {keeper.token} of this turn has been superseded")
            yield seen.stdout, seen.stderr
            if seen.record is not None:
                return
            if seen.link == "lost" and not self._left.is_set():
                seen = None
                await self._reattach()
        if self._dead is not None:
            yield self._output.sizes()

    async def _reattach(self) -> None:
        found = await self._holding.attach()
        if isinstance(found, KeeperClient):
            async with self._inputs:
                await self._send_inputs(found)
        self._keeper = found if isinstance(found, KeeperClient) else None
        self._dead = None if isinstance(found, KeeperClient) else found

    async def _deliver(self, data: bytes) -> bool:
        """Store the next message, then send it. False when the agent reads no more; then nothing was stored."""
        keeper = self._keeper
        if keeper is None or keeper.view.record is not None or self._left.is_set():
            return False
        async with self._inputs:
            number = self._next_input
            await self._holding.store_input(number, data)
            self._next_input = number + 1
            self._unsent.append((number, data))
            return await self._send_inputs(keeper)

    async def _send_inputs(self, keeper: KeeperClient) -> bool:
        """Send what is unsent, in order; what does not go now goes later. False when the agent's stdin is closed."""
        try:
            while self._unsent:
                await keeper.send_stdin(*self._unsent[0])
                self._unsent.popleft()
        except Refused as refused:
            if refused.reason == "stdin_closed":
                self._unsent.clear()
                return False
        except KeeperGone:
            return True
        return True

    async def _go_on(self) -> None:
        """Say what an earlier holder has left unsaid."""
        if self._talk is None:
            return
        if self._minder is not None:
            self._minder.begin()
        await self._talk.run_errands()

    async def _attended(self, batch: Batch) -> Batch:
        if self._talk is None:
            return batch
        return replace(batch, updates=await self._talk.attend(batch.updates))

    async def _dismiss_when_over(self) -> None:
        """The agent has done its work: let it end, and end it should it not."""
        keeper, minder = self._keeper, self._minder
        if keeper is None or minder is None or minder.dismissed or self._talk is None or not self._talk.over:
            return
        minder.dismiss()
        with contextlib.suppress(KeeperGone):
            await keeper.close_stdin()

    async def _end(self) -> None:
        if self._keeper is not None:
            await self._keeper.ladder()

    def _rest(self) -> None:
        if self._minder is not None:
            self._minder.rest()

    async def _finish(self) -> Batch:
        """All output has been read: what is left to say, and how it ended."""
        last = await self._attended(self._output.finish())
        self._rest()
        if self._talk is not None:
            await self._talk.end()
        record = self._record()
        if record is not None and (refused := self._holding.refusal(record)) is not None:
            self._ended = Ended(outcome=TurnOutcome(failure=refused), stopped=_stopped(record))
            return last
        if record is None or (record.reason != "exit" and self._talk is None):
            self._ended = _not_by_itself(record, self._dead)
            return last
        verdict = self._codec.finish(Exit(code=record.exit_code, signal=record.signal))
        if record.reason == "exit" or (record.reason == "stopped" and self._has_answered(verdict.outcome)):
            self._ended = Ended(outcome=verdict.outcome, stopped=_stopped(record))
        elif self._minder is not None and self._minder.silent:
            self._ended = Ended(outcome=TurnOutcome(failure=_SILENT), stopped=_stopped(record))
        else:
            self._ended = _not_by_itself(record, self._dead)
        return replace(last, updates=(*last.updates, *verdict.updates))

    def _has_answered(self, outcome: TurnOutcome) -> bool:
        """Whether its work was done before it was ended. One that calls itself cancelled was ended by somebody, unless
        we know better.
        """
        if self._talk is None or self._minder is None or not self._talk.over or self._cut_short:
            return False
        return self._minder.dismissed or outcome.stop_reason != "cancelled"

    def _record(self) -> ExitRecord | None:
        if self._dead is not None:
            return self._dead.record
        return self._keeper.view.record if self._keeper is not None else None

    async def _give_up(self, failure: Failure) -> None:
        """What was recorded cannot be continued: end the agent."""
        if self._keeper is not None:
            with contextlib.suppress(KeeperGone):
                await self._keeper.ladder()
                await self._keeper.ended()
        record = self._record()
        self._ended = Ended(
            outcome=TurnOutcome(failure=failure), stopped=_stopped(record) if record is not None else None
        )


def _not_by_itself(record: ExitRecord | None, dead: Dead | None) -> Ended:
    reason = record.reason if record is not None else "keeper_lost"
    failure = _FAILURES.get(reason)
    outcome = TurnOutcome(failure=failure) if failure is not None else TurnOutcome(stop_reason="stopped")
    stopped = _stopped(record) if record is not None else Stopped(steps=("sweep",))
    if dead is not None:
        stopped = replace(stopped or Stopped(), survivors=dead.survivors)
    return Ended(outcome=outcome, stopped=stopped, cause=_CAUSES.get(reason, "exit"))


def _stopped(record: ExitRecord) -> Stopped | None:
    """What was done to end it; None when it ended by itself and left nothing behind."""
    if record.reason == "exit" and not record.steps:
        return None
    return Stopped(steps=tuple(step.name for step in record.steps), survivors=record.survivors)
