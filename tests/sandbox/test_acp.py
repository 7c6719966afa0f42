"""The real agents of the protocol inside the sandbox, and a command that one of them asks us to run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.backends.acp_programs import real_program
from tests.backends.test_acp_real import NAMES, Real
from tests.keeper.harness import Place
from tests.sandbox.estate import need_bubblewrap

from overnight.backends.acp.catalogue import Name
from overnight.backends.process.backend import ProcessBackend
from overnight.clock import SystemClock
from overnight.domain.update import Message, ToolCompleted
from overnight.testing.pytest_plugin import StartModel
from overnight.workspaces.sandbox import Bubblewrap
from overnight.workspaces.sandbox_network import Network
from overnight.workspaces.sandbox_places import Surroundings
from overnight.workspaces.texts import Texts

pytestmark = [pytest.mark.anyio, pytest.mark.real_agents]

Start = Callable[..., Real]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> Name:
    found: Name = request.param
    return found


@pytest.fixture
def confined(
    outside_tmp: Path, start_model: StartModel, agent_program: Callable[[str], Path]
) -> Iterator[Start]:
    """Makes one real program, confined, with a scripted model."""
    place = Place.make(outside_tmp)
    secret = (place.data_dir, place.runtime_dir)
    sandbox = Bubblewrap(Surroundings(user_home=Path.home(), secret=secret), network=Network())
    need_bubblewrap(sandbox)

    def make(name: Name, *turns: list[Any]) -> Real:
        # Qwen's first words to the model are a turn of their own.
        server = start_model({"turns": [turns[0], *turns] if name == "qwen" else list(turns)})
        backend = ProcessBackend(
            real_program(name, agent_program(name), server.url), place.spawner, clock=SystemClock(),
            data_dir=place.data_dir, files=Texts(), sandbox=sandbox,
        )  # fmt: skip
        return Real(name=name, place=place, backend=backend, server=server)

    yield make
    place.clear()
    shutil.rmtree(place.runtime_dir, ignore_errors=True)


async def test_a_command_that_was_allowed_runs_inside(confined: Start, name: Name, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("kept")
    line = f"echo hi > a.txt; cat a.txt; cat ../keeper.key; echo lost > {outside}; echo end"
    real = confined(name, [{"tool": "shell", "arguments": {"command": line}}, {"text": "DONE."}])
    record, ended = await real.run()
    assert ended.outcome.failure is None, ended
    assert (real.workspace / "a.txt").read_text() == "hi\n"
    assert outside.read_text() == "kept"
    key = (real.place.data_dir / "keeper.key").read_text()
    assert key not in str(record.updates)
    assert record.of(ToolCompleted)
    assert "DONE." in "".join(message.text for message in record.of(Message))
    assert ended.stopped is None or ended.stopped.survivors == 0
