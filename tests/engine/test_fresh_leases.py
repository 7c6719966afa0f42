"""A turn begins with a lease that was renewed lately: else its keeper would end the agent before the next renewal."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent

from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.errors import Unavailable
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def patient(agent: FakeAgent) -> TurnOutcome | None:
    await agent.go.wait()
    return None


async def test_no_turn_begins_while_renewals_fail(rig: Make) -> None:
    backend = fake(patient)
    server = await rig(backend)
    run = await server.submit(mode="continuous", limits={"turns": 2})
    first = await server.agent(backend)
    renew, failed, away = server.source.renew, 0, True

    async def unreliable(tokens: Mapping[int, int]) -> frozenset[int]:
        nonlocal failed
        if away:
            failed += 1
            raise Unavailable("the database is away for renewals")
        return await renew(tokens)

    server.source.renew = unreliable  # type: ignore[method-assign]
    await eventually(lambda: failed > 2)
    first.go.set()
    await eventually(lambda: has_ended(server, run), what="the first turn ends")
    seen = failed
    await eventually(lambda: failed > seen + 2)
    assert len(backend.agents) == 1, "no agent is started whose keeper would end it"
    away = False
    second = await server.agent(backend, 2)
    second.go.set()
    assert (await server.until(run, State.COMPLETED, State.FAILED)).turn == 2


async def has_ended(server: object, run: object) -> bool:
    return "turn.completed" in await server.types(run)  # type: ignore[attr-defined]
