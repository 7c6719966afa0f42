"""A backend whose agents are coroutines of the test. They outlive the "server" that started them, as real ones do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overnight.clock import SystemClock
from overnight.domain.action import Action
from overnight.domain.backend import BackendCheck, Capabilities, Problem
from overnight.domain.run import Position
from overnight.domain.update import (
    Answer,
    Asked,
    Message,
    Output,
    TurnOutcome,
    Update,
    UsageReported,
    Withdrawn,
)
from overnight.domain.values import Failure, Usage
from overnight.errors import BackendFailure, LeaseLost
from overnight.ports.backend import BackendTurn, Batch, Ended, Stopped, StoreInput, TurnStart, Verdict

Script = Callable[["FakeAgent"], Awaitable[TurnOutcome | None]]
FULL = Capabilities(
    resume=True, interrupt=True, inject=True, usage=True, sandbox=("workspace_write",), workspace=True
)


class FakeAgent:
    """One agent at one turn: what it says is kept, as a keeper keeps it in files."""

    def __init__(self, start: TurnStart, script: Script) -> None:
        self.start = start
        self.token = start.token
        self.updates: list[Update] = []
        self.injected: list[str] = []
        self.last: list[Update] = []
        """What its backend makes of its end."""
        self.asks: dict[str, Asked] = {}
        self.answers: dict[str, Verdict] = {}
        self.deadlines: list[float] = []
        self.renewed = 0
        self.released = False
        self.ended: Ended | None = None
        self.news = asyncio.Event()
        self.answered = asyncio.Event()
        self.go = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(script))

    @property
    def workspace(self) -> Path:
        return self.start.workspace

    @property
    def alive(self) -> bool:
        return self.ended is None

    def say(self, text: str) -> None:
        self.emit(Message(item_id=f"m{len(self.updates)}", text=text))

    def print(self, text: str) -> None:
        self.emit(Output(stream="stdout", data=text.encode() + b"\n"))

    def use(self, tokens: int) -> None:
        self.emit(UsageReported(usage=Usage(input=tokens)))

    def write(self, path: str, text: str) -> None:
        target = self.workspace / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        with (self.workspace / path).open("a", encoding="utf-8") as file:
            file.write(text)

    async def ask(self, key: str, action: Action, *answers: Answer) -> Verdict:
        """Ask for leave and wait for the answer."""
        self.asks[key] = Asked(key=key, action=action, item_id=f"call-{key}", answers=answers)
        self.emit(self.asks[key])
        while key not in self.answers:
            await self.answered.wait()
        return self.answers[key]

    def withdraw(self, key: str) -> None:
        del self.asks[key]
        self.emit(Withdrawn(key=key))

    def emit(self, *updates: Update) -> None:
        self.updates += updates
        self._stir()

    async def forever(self) -> None:
        await asyncio.Event().wait()

    async def work(self, seconds: float) -> None:
        """Be busy for so long: agents take their time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.forever()

    def end(self, ended: Ended) -> None:
        if self.ended is None:
            self.ended = ended
            self._task.cancel()
            self._stir()

    def _stir(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    async def _run(self, script: Script) -> None:
        outcome = await script(self) or TurnOutcome(stop_reason="end_turn")
        if self.ended is None:
            self.ended = Ended(outcome=outcome)
            self._stir()


class FakeTurn:
    """The engine's end of an agent."""

    def __init__(self, agent: FakeAgent, token: int, position: int) -> None:
        self._agent = agent
        self._token = token
        self._position = position
        self._left = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return 4242

    async def batches(self) -> AsyncIterator[Batch]:
        agent = self._agent
        while not self._left.is_set():
            news = agent.news
            if self._position < len(agent.updates):
                fresh = tuple(agent.updates[self._position : self._position + 100])
                self._position += len(fresh)
                yield Batch(updates=fresh, position=Position(stdout=self._position))
                await asyncio.sleep(0)
                continue
            if agent.ended is not None:
                yield Batch(updates=tuple(agent.last), position=Position(stdout=self._position), final=True)
                return
            waits = [asyncio.ensure_future(news.wait()), asyncio.ensure_future(self._left.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def ended(self) -> Ended:
        assert self._agent.ended is not None
        return self._agent.ended

    async def renew(self, sent_at: float, lease_s: float) -> None:
        self._fenced()
        self._agent.renewed += 1

    def open_asks(self) -> tuple[Asked, ...]:
        """By what was read: a codec knows nothing of what stands behind its position."""
        read = self._agent.updates[: self._position]
        asked = {update.key: update for update in read if isinstance(update, Asked)}
        for update in read:
            if isinstance(update, Withdrawn):
                asked.pop(update.key, None)
        return tuple(ask for key, ask in asked.items() if key not in self._agent.answers)

    async def answer(self, key: str, verdict: Verdict) -> bool:
        self._fenced()
        agent = self._agent
        if all(ask.key != key for ask in self.open_asks()) or agent.ended is not None:
            return False
        agent.answers[key] = verdict
        agent.answered.set()
        agent.answered = asyncio.Event()
        return True

    async def extend(self, deadline: float) -> None:
        self._fenced()
        self._agent.deadlines.append(deadline)

    async def inject(self, text: str) -> bool:
        self._fenced()
        self._agent.injected.append(text)
        return True

    async def stop(self, *, reason: str, interrupt: bool) -> None:
        self._fenced()
        steps = ("interrupt",) if interrupt else ("sigterm", "sweep")
        outcome = TurnOutcome(stop_reason="stopped")
        cause = "deadline" if reason == "deadline" else "stopped"
        self._agent.end(Ended(outcome=outcome, stopped=Stopped(steps=steps), cause=cause))  # type: ignore[arg-type]

    async def release(self) -> None:
        self._agent.released = True

    async def leave(self) -> None:
        self._left.set()

    def _fenced(self) -> None:
        if self._token < self._agent.token:
            raise LeaseLost(f"the agent is at token {self._agent.token}")


@dataclass
class FakeBackend:
    """Agents by script; the agents of all turns are in `agents`, the living ones can be adopted."""

    name: str
    script: Script
    capabilities: Capabilities = FULL
    problem: str | None = None
    refuses: Failure | None = None
    agents: list[FakeAgent] = field(default_factory=list)
    gone: set[tuple[str, int, int]] = field(default_factory=set)
    on_start: Callable[[TurnStart], None] | None = None

    async def check(self) -> BackendCheck:
        problems: Sequence[Problem] = (
            [Problem(code="broken", message=self.problem, mend="mend it")] if self.problem else []
        )
        return BackendCheck(
            name=self.name, status="fail" if problems else "ok", capabilities=self.capabilities,
            problems=tuple(problems), checked_at=SystemClock().wall_ms(), stamp=self.stamp(),
        )  # fmt: skip

    def stamp(self) -> str:
        return self.problem or "fine"

    async def start(self, start: TurnStart, store_input: StoreInput) -> BackendTurn:
        if self.on_start is not None:
            self.on_start(start)
        if self.refuses is not None:
            raise BackendFailure(
                self.refuses.message, code=self.refuses.code, retryable=self.refuses.retryable
            )
        await store_input(1, start.prompt.encode())
        agent = FakeAgent(start, self.script)
        self.agents.append(agent)
        return FakeTurn(agent, start.token, 0)

    async def adopt(self, start: TurnStart, store_input: StoreInput) -> BackendTurn | None:
        key = (start.run_id, start.turn, start.attempt)
        agent = next((a for a in self.agents if (a.start.run_id, a.start.turn, a.start.attempt) == key), None)
        if agent is None or key in self.gone:
            return None
        assert start.prompt == agent.start.prompt
        assert start.inputs_sent == 1
        agent.token = start.token
        return FakeTurn(agent, start.token, start.position.stdout)

    def kill(self) -> None:
        """Every agent and its keeper are gone without a word."""
        for agent in self.agents:
            if agent.alive:
                agent.end(Ended(outcome=TurnOutcome(stop_reason="killed")))
                self.gone.add((agent.start.run_id, agent.start.turn, agent.start.attempt))
