"""The real programs, configured for a scripted model server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.backends.acp_stage import Stage
from tests.keeper.harness import Place

from overnight.backends.claude.backend import ClaudeProgram
from overnight.backends.codex.backend import CodexProgram
from overnight.backends.process.program import Program
from overnight.backends.process.settings import ProgramSettings
from overnight.clock import SystemClock

HOST = {"PATH": os.environ["PATH"]}
MakeProgram = Callable[[str], Program]


@pytest.fixture(params=["codex", "claude"])
def real(request: pytest.FixtureRequest) -> MakeProgram:
    """Makes the real program of that name talk to the model server at a URL; it gives up after one retry."""
    path: Path = request.getfixturevalue(f"{request.param}_program")
    if request.param == "codex":
        return lambda url: CodexProgram(codex_settings(path, url), SystemClock())
    return lambda url: ClaudeProgram(claude_settings(path, url), SystemClock())


def codex_settings(program: Path, url: str) -> ProgramSettings:
    provider = (
        f'model_providers.mock={{name="mock", base_url="{url}/v1", env_key="MOCK_KEY", wire_api="responses", '
        "request_max_retries=1, stream_max_retries=1, stream_idle_timeout_ms=20000}"
    )
    return ProgramSettings(
        name="codex",
        program=program,
        args=("-c", "model=mock-model", "-c", "model_provider=mock", "-c", provider),
        environment={"MOCK_KEY": "key"},
        host=HOST,
    )


def claude_settings(program: Path, url: str) -> ProgramSettings:
    environment = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "key", "CLAUDE_CODE_MAX_RETRIES": "1"}
    return ProgramSettings(
        name="claude", program=program, model="claude-sonnet-4-5", environment=environment, host=HOST
    )


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., Path]:
    """Makes an executable that answers `--version`, and exits with `status` for anything else."""

    def make(name: str, version: str, status: int = 0) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" && exit 0\nexit {status}\n')
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A place for turns of the stand-in that speaks the protocol."""
    place = Place.make(tmp_path)
    yield Stage(place=place)
    place.clear()
    shutil.rmtree(place.runtime_dir, ignore_errors=True)
