"""Fixtures: the engine's tests, with their workers elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import shared_by_the_process
from tests.engine.fake_backend import FakeBackend
from tests.remote.rig import RemoteRig

Make = Callable[..., Awaitable[RemoteRig]]


@pytest.fixture
async def rig(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Make]:
    """Start servers with a worker elsewhere; each is shut down in order after the test, unless it was ended."""
    rigs: list[RemoteRig] = []

    async def make(*backends: FakeBackend, root: Path | None = None, **settings: Any) -> RemoteRig:
        supervise = settings.pop("supervise", True)
        made = RemoteRig(root=root or tmp_path, backends=backends, **settings)
        rigs.append(made)
        return await made.start(supervise=supervise)

    before = shared_by_the_process()
    yield make
    for made in rigs:
        if not made.ended:
            await made.supervisor.shutdown()
            await made.close()
    assert shared_by_the_process() == before
