"""A few of the engine's random walks, with their workers at the other end of the lease routes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine import test_approval_walks, test_chat_chances
from tests.remote.conftest import Make

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", [1, 4, 11])
async def test_whatever_happens_to_a_run_that_asks(rig: Make, tmp_path: Path, seed: int) -> None:
    await test_approval_walks.test_whatever_happens_nothing_is_lost_doubled_or_stuck(rig, tmp_path, seed)


@pytest.mark.parametrize("inject", [True, False], ids=["inject", "interrupt"])
async def test_whatever_is_said(rig: Make, inject: bool) -> None:
    await test_chat_chances.test_everything_is_said_once_or_taken_back(rig, 0, inject)
