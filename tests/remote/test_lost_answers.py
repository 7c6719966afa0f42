"""A line that loses requests, loses answers, says things twice, and brings old things late: nothing shows of it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.engine.asking import ASKING, command
from tests.engine.conftest import fake
from tests.engine.fake_backend import FakeAgent, FakeBackend
from tests.remote.conftest import Make
from tests.remote.rig import Line, RemoteRig

from overnight.domain.states import State
from overnight.domain.update import SessionKnown, TurnOutcome
from overnight.errors import OvernightError, Unreachable
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
QUIET = frozenset({"watch", "renew"})


@dataclass
class BadLine(Line):
    """What happens to a call is drawn anew for each."""

    chance: random.Random = field(default_factory=lambda: random.Random(0))
    late: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    losses: int = 0

    async def deliver(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        if path.rpartition("/")[2] in QUIET:
            return await self.ask(path, document)
        await self._bring_late_ones()
        fate = self.chance.random()
        if fate < 0.15:
            self.losses += 1
            raise Unreachable("the request was lost")
        if fate < 0.3:
            await self._quietly(path, document)
            self.losses += 1
            raise Unreachable("the answer was lost")
        if fate < 0.45:
            await self._quietly(path, document)
        if fate < 0.6:
            self.late.append((path, document))
        return await self.ask(path, document)

    async def _bring_late_ones(self) -> None:
        while self.late and self.chance.random() < 0.5:
            await self._quietly(*self.late.pop(0))

    async def _quietly(self, path: str, document: dict[str, Any]) -> None:
        """Something arrives, and nobody hears the answer."""
        if path == "":
            return  # a late offer would lease more than anybody asked for: `test_leases` has the right one
        try:
            await self.ask(path, document)
        except OvernightError:
            return


def lines(seed: int) -> Any:
    return lambda calls: BadLine(calls, chance=random.Random(seed))


async def busy(agent: FakeAgent) -> TurnOutcome | None:
    agent.emit(SessionKnown(state={"thread": "t1"}))
    for number in range(8):
        agent.say(f"message {number}")
        await asyncio.sleep(0)
    verdict = await agent.ask("p0", command())
    agent.say(f"allowed {verdict.allow}")
    return None


async def show_nothing(server: RemoteRig, backend: FakeBackend) -> None:
    """Carry a run of `busy` out; its history is that of a line on which nothing happens."""
    run = await server.submit(mode="oneshot", approval_policy="ask_all")
    [approval] = await server.pending(run)
    await server.decide(approval, "allow_once")
    ended = await server.until(run, State.COMPLETED, within=60)
    said = [data["text"] for data in await server.data(run, "message.completed")]
    assert said == [*(f"message {number}" for number in range(8)), "allowed True"]
    types = [type for type in await server.types(run) if type != "message.completed"]
    assert types == [
        "run.queued", "run.started", "turn.started", "approval.requested", "run.blocked", "approval.resolved",
        "run.resumed", "turn.completed", "run.completed",
    ]  # fmt: skip
    assert (ended.attempt, len(backend.agents)) == (1, 1)


@pytest.mark.parametrize("seed", range(6))
async def test_history_shows_no_loss(rig: Make, seed: int) -> None:
    backend = fake(busy, capabilities=ASKING)
    server = await rig(backend, line_of=lines(seed))
    await show_nothing(server, backend)
    assert isinstance(server.line, BadLine)
    assert server.line.losses, "the line was good by chance"


async def test_line_that_was_cut_costs_only_time(rig: Make) -> None:
    async def patient(agent: FakeAgent) -> TurnOutcome | None:
        agent.say("before")
        await agent.go.wait()
        agent.say("after")
        return None

    backend = fake(patient)
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    server.line.cut = True
    agent.go.set()
    tried = len(server.line.sent)
    await eventually(lambda: len(server.line.sent) > tried + 3)
    assert "turn.completed" not in await server.types(run)
    server.line.cut = False
    await server.until(run, State.COMPLETED)
    assert [data["text"] for data in await server.data(run, "message.completed")] == ["before", "after"]
