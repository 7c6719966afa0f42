"""Fixtures of the engine's tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.fake_backend import FULL, FakeAgent, FakeBackend
from tests.engine.rig import Rig

from overnight.domain.backend import Capabilities
from overnight.domain.update import TurnOutcome

Make = Callable[..., Awaitable[Rig]]


async def quiet(agent: FakeAgent) -> TurnOutcome | None:
    """Says one thing and is done."""
    agent.say("done")
    return None


def fake(
    script: Any = quiet, name: str = "fake", capabilities: Capabilities = FULL, **more: Any
) -> FakeBackend:
    return FakeBackend(name=name, script=script, capabilities=capabilities, **more)


@pytest.fixture
async def rig(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Make]:
    """Start servers; each is shut down in order after the test, unless it was ended before."""
    rigs: list[Rig] = []

    async def make(*backends: FakeBackend, root: Path | None = None, **settings: Any) -> Rig:
        supervise = settings.pop("supervise", True)
        made = Rig(root=root or tmp_path, backends=backends, **settings)
        rigs.append(made)
        return await made.start(supervise=supervise)

    before = shared_by_the_process()
    yield make
    for made in rigs:
        if not made.ended:
            await made.supervisor.shutdown()
            await made.close()
    assert shared_by_the_process() == before


def shared_by_the_process() -> tuple[object, ...]:
    """What every thread and task has in common: carrying out runs leaves it alone."""
    loop = asyncio.get_running_loop()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return Path.cwd(), sys.stdout, sys.stderr, environment, loop, signal.getsignal(signal.SIGTERM)
