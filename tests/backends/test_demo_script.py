"""The scripted job of `make run AGENT=…` reaches its goal in three turns with either real program."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backends.conftest import MakeProgram

from overnight.domain.update import ToolCompleted
from overnight.testing.bare_turn import run_bare, turn_start
from overnight.testing.demo_script import SCRIPT
from overnight.testing.pytest_plugin import StartModel
from overnight.testing.sample_workspace import GOAL, copy_to

pytestmark = [pytest.mark.anyio, pytest.mark.real_agents]


async def test_three_turns_from_the_goal_to_the_stop_file(
    real: MakeProgram, start_model: StartModel, outside_tmp: Path
) -> None:
    server = start_model(SCRIPT)
    start = turn_start(outside_tmp, prompt=GOAL, sandbox="workspace_write")
    workspace = copy_to(start.workspace)
    stop = workspace / ".overnight" / "stop"
    for number in (1, 2, 3):
        assert not stop.exists()
        turn = await run_bare(real(server.url), replace(start, turn=number))
        assert turn.outcome.stop_reason == "end_turn", turn.outcome
        commands = [update for update in turn.updates if isinstance(update, ToolCompleted)]
        assert all(update.ok for update in commands), commands
        start = replace(start, resume=turn.resume, prompt="Go on.")
    assert stop.exists()
    assert (workspace / "WORKLOG.md").read_text().count("Next steps:") == 3
    assert all_tests_pass(workspace)


def all_tests_pass(workspace: Path) -> bool:
    argv = [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", "."]
    return subprocess.run(argv, cwd=workspace, capture_output=True, check=False).returncode == 0
