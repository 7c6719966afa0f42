"""Random walks through everything that can happen to a run that asks, with what must hold after every step."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.engine.asking import ASKING, command
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent, FakeBackend
from tests.engine.rig import Rig

from overnight.domain.approval import Approval
from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.domain.values import Failure
from overnight.engine.maintenance.expirer import _expire
from overnight.errors import OvernightError
from overnight.ports.approval_tables import ApprovalFilter
from overnight.ports.backend import Ended
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

SEEDS = range(18)
STEPS = 24
LINES = ("make a", "make b")
CRASHED = Ended(outcome=TurnOutcome(failure=Failure(code="crashed", message="it crashed", retryable=True)))


@dataclass
class Hand:
    """What one agent is told to do by the walk."""

    agent: FakeAgent
    box: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    asking: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    @property
    def waits(self) -> list[str]:
        """Keys of what it has asked and was not told yet."""
        return [key for key in self.agent.asks if key not in self.agent.answers]


@dataclass
class Walk:
    """One run, its servers and its agents."""

    rig: Make
    root: Path
    rng: random.Random
    hands: list[Hand] = field(default_factory=list)
    trail: list[str] = field(default_factory=list)
    asked: int = 0
    closing: bool = False
    down: bool = False

    async def begin(self) -> None:
        """The first server, and the run."""
        steers = self.rng.choice([True, False])
        self.backend: FakeBackend = fake(self.script, capabilities=replace(ASKING, inject=steers))
        self.server: Rig = await self.rig(self.backend, root=self.root)
        self.run: Run = await self.server.submit(
            mode="oneshot", approval_policy="ask_all", limits={"attempts": 100}
        )
        await self.server.agent(self.backend)

    async def script(self, agent: FakeAgent) -> None:
        hand = Hand(agent)
        self.hands.append(hand)
        while not self.closing or hand.waits:
            word = await hand.box.get()
            if word == "end":
                return
            if word == "ask":
                self.asked += 1
                action = replace(command(self.rng.choice(LINES)), title=f"ask #{self.asked}.")
                key = f"p{len(hand.asking)}"
                hand.lines[key] = str(action.command)
                hand.asking[key] = asyncio.ensure_future(agent.ask(key, action))
                await asyncio.sleep(0)
            elif word == "withdraw" and hand.waits:
                key = self.rng.choice(hand.waits)
                hand.asking[key].cancel()
                agent.withdraw(key)

    @property
    def living(self) -> Hand | None:
        """The agent at work."""
        return next((hand for hand in reversed(self.hands) if hand.agent.alive), None)

    # what can happen

    async def tell(self, word: str) -> None:
        """The agent asks, withdraws or ends."""
        if self.living is not None:
            self.living.box.put_nowait(word)

    async def die(self) -> None:
        """The agent dies, under a server or without one."""
        if self.down:
            self.backend.kill()
        elif self.living is not None:
            self.living.agent.end(CRASHED)

    async def decide(self) -> None:
        """Somebody decides about something."""
        for approval in (await self.pending())[:1]:
            option = self.rng.choice(
                ["allow_once", "allow_once", "reject_once", "reject_once", "allow_always"]
            )
            await self.server.decide(approval, option)

    async def expire(self) -> None:
        """Nobody has decided in time."""
        for approval in (await self.pending())[:1]:
            now = self.server.clock.wall_ms()
            await self.server.store.write(partial(_expire, found=approval, now_ms=now))

    async def control(self, action: str, **more: Any) -> None:
        """A person controls the run."""
        await self.server.control(self.run, action, **more)

    async def park(self) -> None:
        """The agent has waited too long."""
        for hold in self.server.worker._holds.values():
            if hold.blocked:
                hold.ask("park")

    async def stop(self, how: str) -> None:
        """The server ends, in one way or another."""
        if self.down:
            return
        if how == "crash":
            await self.server.crash()
        else:
            await getattr(self.server.supervisor, how)()
            await self.server.close()
        self.down = True
        self.server = await self.rig(self.backend, root=self.root, supervise=False)

    async def start(self) -> None:
        """The next server takes over."""
        if self.down:
            self.down = False
            await self.server.supervisor.start()

    async def step(self) -> None:
        """Any of that, and then some time, or none."""
        state, waits = (await self.check()).state, bool(await self.pending())
        choices: list[tuple[int, str, Callable[[], Awaitable[None]]]] = [
            (14 if self.living else 0, "ask", partial(self.tell, "ask")),
            (4 if waits else 0, "withdraw", partial(self.tell, "withdraw")),
            (1, "end", partial(self.tell, "end")),
            (2, "die", self.die),
            (14 if waits else 0, "decide", self.decide),
            (4 if waits else 0, "expire", self.expire),
            (2, "pause", partial(self.control, "pause")),
            (1, "pause now", partial(self.control, "pause", when="now")),
            (9 if state in {State.PAUSED, State.PAUSING} else 1, "resume", partial(self.control, "resume")),
            (2, "steer", partial(self.control, "steer", text="look here")),
            (1, "cancel", partial(self.control, "cancel")) if self.rng.random() < 0.2 else (0, "", self.park),
            (4 if waits else 0, "park", self.park),
            (3, "crash", partial(self.stop, "crash")),
            (1, "shutdown", partial(self.stop, "shutdown")),
            (1, "handover", partial(self.stop, "handover")),
            (14 if self.down else 0, "start", self.start),
        ]
        [(_, name, act)] = self.rng.choices(choices, [weight for weight, _, _ in choices])
        self.trail.append(name)
        try:
            await act()
        except OvernightError as refused:
            self.trail.append(f"({type(refused).__name__})")
        before = await self.check()
        for _ in range(self.rng.choice([0, 0, 1, 4, 20, 20])):
            if (await self.check()).change != before.change:
                break

    # what must hold

    async def pending(self) -> list[Approval]:
        found = list(await self.server.store.read(lambda tx: tx.approvals.pending(self.run.pk)))
        self.rng.shuffle(found)
        return found

    async def approvals(self) -> tuple[Approval, ...]:
        return await self.server.approvals.list(ApprovalFilter(run_id=self.run.id), limit=500)

    async def check(self) -> Run:
        """The run and what is open fit together, and no agent was told what nobody had decided."""
        told = [(hand, dict(hand.agent.answers)) for hand in self.hands]
        run, pending = await self.server.store.read(
            lambda tx: (tx.runs.get(self.run.id, None), {one.id for one in tx.approvals.pending(self.run.pk)})
        )
        where = f"{run.state} {run.waiting_for} {pending}"
        if run.state in {State.BLOCKED, State.WAITING}:
            assert run.waiting_for is not None, where
            assert run.waiting_for.approval_id in pending, where
        elif run.state not in {State.PAUSED, State.CANCELLING}:
            assert not pending, where
        known = {(one.turn, one.attempt, one.request): one for one in await self.approvals()}
        allowed: Counter[str] = Counter()
        for hand, answers in told:
            for key, verdict in answers.items():
                about = known.get((hand.agent.start.turn, hand.agent.start.attempt, key))
                chosen = about.chosen.kind if about is not None and about.chosen is not None else None
                if about is not None:
                    assert verdict.allow == (chosen in {"allow_once", "allow_always"}), (key, chosen)
                if verdict.allow and chosen != "allow_always":
                    allowed[hand.lines[key]] += 1
        always = {
            str(one.action.command) for one in known.values() if one.action and _chose(one, "allow_always")
        }
        for line, times in allowed.items():
            once = [one for one in known.values() if one.action and one.action.command == line]
            assert line in always or times <= sum(_chose(one, "allow_once") for one in once), line
        return run

    async def close(self) -> None:
        """Once everything is decided the run comes to its end, and every decision has come to somebody."""
        self.closing = True
        await self.start()
        self.trail.append("| closing")
        await eventually(self._is_over, within=60, what="the end of the run")
        counted = Counter(
            event["data"]["approval_id"]
            for event in await self.server.events(self.run)
            if event["type"] in {"approval.resolved", "approval.expired", "approval.cancelled"}
            and event["data"]["approval_id"]
        )  # fmt: skip
        assert set(counted.values()) <= {1}
        places = [(hand.agent.start.turn, hand.agent.start.attempt) for hand in self.hands]
        for one in await self.approvals():
            assert one.state != "pending"
            at = places.index((one.turn or 0, one.attempt or 0))
            hand, later = self.hands[at], self.hands[at + 1 :]
            if one.decision is not None and str(one.request) in hand.waits and later:
                assert any(one.title in next_one.agent.start.prompt for next_one in later), (
                    f"{one.title} is lost"
                )

    async def _is_over(self) -> bool:
        run = await self.check()
        if run.final:
            return True
        for approval in await self.pending():
            await self._try(self.server.decide(approval, "reject_once"))
        if run.state is State.PAUSED:
            await self._try(self.server.control(run, "resume"))
        if self.living is not None and not self.living.waits:
            self.living.box.put_nowait("end")
        return False

    async def _try(self, doing: Awaitable[object]) -> None:
        try:
            await doing
        except OvernightError as refused:
            self.trail.append(f"({type(refused).__name__})")


def _chose(approval: Approval, kind: str) -> bool:
    return approval.chosen is not None and approval.chosen.kind == kind


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_nothing_is_lost_doubled_or_stuck(
    rig: Make, tmp_path: Path, seed: int
) -> None:
    walk = Walk(rig=rig, root=tmp_path, rng=random.Random(seed))
    await walk.begin()
    try:
        for _ in range(STEPS):
            await walk.step()
        await walk.close()
    except AssertionError as broken:
        raise AssertionError(f"seed {seed}: {' '.join(walk.trail)}: {broken}") from broken
