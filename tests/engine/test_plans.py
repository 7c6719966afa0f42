"""A plan that has changed is work; one that was only told again is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent

from overnight.domain.states import State
from overnight.domain.update import PlanReported
from overnight.domain.values import Completion
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


def tell_plan(agent: FakeAgent, text: str) -> None:
    agent.emit(PlanReported(entries=({"text": text, "status": "pending"},)))


async def test_turns_are_idle_once_the_plan_stays_as_it_is(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        tell_plan(agent, f"step {min(agent.start.turn, 3)}")

    server = await rig(fake(script))
    ended = await server.until(await server.submit(completion={"idle_turns": 2}), State.COMPLETED)
    assert (ended.completion, ended.turn) == (Completion(by="idle"), 5)


async def test_a_plan_told_with_the_last_words_of_a_turn_counts_too(rig: Make) -> None:
    """What is recorded with the settlement is not in the log yet when the turn is weighed."""

    async def script(agent: FakeAgent) -> None:
        text = f"step {min(agent.start.turn, 3)}"
        agent.last = [PlanReported(entries=({"text": text, "status": "pending"},))]

    server = await rig(fake(script))
    ended = await server.until(await server.submit(completion={"idle_turns": 2}), State.COMPLETED)
    assert (ended.completion, ended.turn) == (Completion(by="idle"), 5)


async def test_a_plan_told_before_a_crash_counts_for_its_turn(rig: Make, tmp_path: Path) -> None:
    async def script(agent: FakeAgent) -> None:
        if agent.start.turn == 1:
            tell_plan(agent, "all of it")
            await agent.go.wait()

    backend = fake(script)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(completion={"idle_turns": 2})
    agent = await server.agent(backend)

    async def told() -> bool:
        return "plan.updated" in await server.types(run)

    await eventually(told)
    await server.crash()
    server = await rig(backend, root=tmp_path)
    agent.go.set()
    ended = await server.until(run, State.COMPLETED)
    assert (ended.completion, ended.turn) == (Completion(by="idle"), 3)
