"""A run from its claim to its end."""

from __future__ import annotations

import asyncio

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent

from overnight.domain.states import State
from overnight.domain.update import TurnOutcome

pytestmark = pytest.mark.anyio


async def test_a_oneshot_run_is_one_turn(rig: Make) -> None:
    backend = fake()
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    ended = await server.until(run, State.COMPLETED)
    assert ended.completion is not None
    assert (ended.completion.by, ended.turn, ended.attempt, ended.stats.turns) == ("one_turn", 1, 1, 1)
    assert await server.types(run) == [
        "run.queued", "run.started", "turn.started", "message.completed", "turn.completed", "run.completed",
    ]  # fmt: skip
    assert ended.worker is None
    assert backend.agents[0].released
