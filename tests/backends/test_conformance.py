"""Every backend passes the suite of its port."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backends.acp_stage import Stage
from tests.backends.conftest import HOST, codex_settings
from tests.keeper.harness import Place

from overnight.backends.codex.backend import CodexProgram
from overnight.backends.command.backend import CommandProgram
from overnight.backends.echo.backend import EchoBackend
from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.program import Program
from overnight.backends.process.settings import ProgramSettings
from overnight.clock import SystemClock
from overnight.ports.backend import Backend, TurnStart
from overnight.testing.agents import SCRIPTED_AGENT
from overnight.testing.bare_turn import turn_start
from overnight.testing.conformance.backend import ALPHA, BETA, BackendStage, BackendSuite
from overnight.testing.pytest_plugin import StartModel

SCRIPT = {"turns": [{"match": word, "moves": [{"text": f"I heard {word}."}]} for word in (ALPHA, BETA)]}


def stage(backend: Backend, place: Place) -> BackendStage:
    numbers = itertools.count()

    def begin(prompt: str) -> TurnStart:
        start = turn_start(place.data_dir / f"t{next(numbers)}", prompt=prompt, sandbox="full_access")
        place.turns.append(start.folder)
        return start

    return BackendStage(backend=backend, begin=begin)


@pytest.fixture
def place(outside_tmp: Path) -> Iterator[Place]:
    found = Place.make(outside_tmp)
    yield found
    found.clear()
    shutil.rmtree(found.runtime_dir, ignore_errors=True)


class TestEcho(BackendSuite):
    @pytest.fixture
    def stage(self, place: Place) -> BackendStage:
        return stage(EchoBackend(SystemClock()), place)


def under_keeper(program: Program, place: Place) -> ProcessBackend:
    return ProcessBackend(program, place.spawner, clock=SystemClock(), data_dir=place.data_dir)


class TestCommand(BackendSuite):
    @pytest.fixture
    def stage(self, place: Place) -> BackendStage:
        command = (sys.executable, str(SCRIPTED_AGENT), '[["read_prompt"], ["echo_prompt"]]')
        program = CommandProgram(ProgramSettings(name="mine", command=command, host=HOST), SystemClock())
        return stage(under_keeper(program, place), place)


class TestAcp(BackendSuite):
    @pytest.fixture
    def stage(self, place: Place) -> BackendStage:
        acp = Stage(place=place)
        rows: list[tuple[int, bytes]] = []

        async def store(number: int, data: bytes) -> None:
            if number == 1:
                rows.clear()  # the next turn begins; the suite takes up none but the last
            rows.append((number, data))

        def taken_up(start: TurnStart) -> TurnStart:
            return replace(start, inputs=tuple(rows), inputs_sent=len(rows))

        made = stage(acp.backend(["say", "I heard $PROMPT"]), place)
        return replace(made, store=store, taken_up=taken_up)


@pytest.mark.real_agents
class TestCodex(BackendSuite):
    """The other real program goes through the same stories in test_real_under_keeper; here it would only be slow."""

    @pytest.fixture
    def stage(self, place: Place, codex_program: Path, start_model: StartModel) -> BackendStage:
        program = CodexProgram(codex_settings(codex_program, start_model(SCRIPT).url), SystemClock())
        return stage(under_keeper(program, place), place)
