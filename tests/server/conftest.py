"""The stage of the server's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.stage import Stage, staged


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    """One stage for all tests of a module that only knock at its doors."""
    async with staged(tmp_path_factory.mktemp("shared")) as made:
        yield made
