"""The stage of the server's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.stage import Stage, staged


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made
