"""The shell of the commands' tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.cli.shell import Shell
from tests.server.stage import staged


@pytest.fixture
async def shell(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Shell]:
    (tmp_path / "home").mkdir(mode=0o700)
    async with staged(tmp_path) as stage:
        yield Shell(stage, tmp_path / "home")
