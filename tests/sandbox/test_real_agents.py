"""The real programs inside the sandbox: they work, resume, are interrupted and taken up as they are without it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backends.conftest import MakeProgram, claude_settings, codex_settings
from tests.keeper.harness import Place
from tests.sandbox.estate import need_bubblewrap, no_input

from overnight.backends.claude.backend import ClaudeProgram
from overnight.backends.codex.backend import CodexProgram
from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.turn import ProcessTurn
from overnight.clock import SystemClock
from overnight.domain.update import Message, SessionKnown, ToolCompleted, Update
from overnight.ports.backend import TurnStart
from overnight.testing.bare_turn import turn_start
from overnight.testing.pytest_plugin import StartModel
from overnight.testing.signals import eventually
from overnight.workspaces.sandbox import Bubblewrap
from overnight.workspaces.sandbox_network import Network
from overnight.workspaces.sandbox_places import Surroundings

pytestmark = [pytest.mark.anyio, pytest.mark.real_agents]


@pytest.fixture
def place(outside_tmp: Path) -> Iterator[Place]:
    found = Place.make(outside_tmp)
    yield found
    found.clear()
    shutil.rmtree(found.runtime_dir, ignore_errors=True)


@pytest.fixture(params=["codex", "claude"])
def real(request: pytest.FixtureRequest) -> MakeProgram:
    path: Path = request.getfixturevalue(f"{request.param}_program")
    if request.param == "codex":
        return lambda url: CodexProgram(codex_settings(path, url), SystemClock())
    return lambda url: ClaudeProgram(claude_settings(path, url), SystemClock())


def confined(
    place: Place,
    real: MakeProgram,
    url: str,
    network: Network = Network(),  # noqa: B008  # a frozen value
) -> ProcessBackend:
    home = Path(os.environ.get("HOME", "/root"))
    secret = (place.data_dir, place.runtime_dir)
    sandbox = Bubblewrap(Surroundings(user_home=home, secret=secret), network=network)
    need_bubblewrap(sandbox)
    return ProcessBackend(
        real(url), place.spawner, clock=SystemClock(), data_dir=place.data_dir, sandbox=sandbox
    )


def begin(place: Place, **changes: object) -> TurnStart:
    folder = place.data_dir / f"turn-{len(place.turns)}"
    folder.mkdir()
    start = replace(turn_start(place.data_dir, **changes), folder=folder)  # type: ignore[arg-type]
    place.turns.append(start.folder)
    return start


async def read(turn: ProcessTurn) -> list[Update]:
    return [update async for batch in turn.batches() for update in batch.updates]


async def test_two_turns_of_a_session(place: Place, real: MakeProgram, start_model: StartModel) -> None:
    secret = place.data_dir / "keeper.key"
    command = f"echo hi > a.txt; cat {secret}; ls {place.data_dir}; echo end"
    server = start_model([{"tool": "shell", "arguments": {"command": command}}, {"text": "DONE."}])
    backend = confined(place, real, server.url)
    assert "workspace_write" in backend.capabilities.sandbox
    turn = await backend.start(begin(place, prompt="Make a.txt."), no_input)
    updates = await read(turn)
    assert (turn.ended().cause, turn.ended().outcome.failure) == ("exit", None)
    assert [u.text for u in updates if isinstance(u, Message)] == ["DONE."]
    assert (place.data_dir / "workspace/a.txt").read_text() == "hi\n"
    (tool,) = [u for u in updates if isinstance(u, ToolCompleted)]
    assert "No such file" in tool.output
    assert "keeper.key\n" not in tool.output.replace(f"{secret}", "")
    await turn.release()

    known = [u for u in updates if isinstance(u, SessionKnown)][-1].state
    again = await backend.start(begin(place, prompt="Go on.", resume=known, turn=2), no_input)
    await read(again)
    assert again.ended().outcome.failure is None
    assert "Make a.txt." in str(server.requests[-1].body)
    await again.release()


async def test_a_turn_that_may_only_read(place: Place, real: MakeProgram, start_model: StartModel) -> None:
    command = "echo hi > a.txt; echo tried"
    server = start_model([{"tool": "shell", "arguments": {"command": command}}, {"text": "DONE."}])
    turn = await confined(place, real, server.url).start(begin(place, sandbox="read_only"), no_input)
    updates = await read(turn)
    assert turn.ended().outcome.failure is None
    assert "Read-only file system" in next(u for u in updates if isinstance(u, ToolCompleted)).output
    assert not (place.data_dir / "workspace/a.txt").exists()
    await turn.release()


async def test_a_turn_is_cancelled(place: Place, real: MakeProgram, start_model: StartModel) -> None:
    server = start_model([{"text": "words that stop", "fault": "hang"}])
    start = begin(place)
    patient = replace(
        start, limits=replace(start.limits, timeout_s=300, grace_s=60)
    )  # a busy machine is slow to end
    turn = await confined(place, real, server.url).start(patient, no_input)
    reading = asyncio.ensure_future(read(turn))
    await eventually(lambda: server.requests, within=90)
    await turn.stop(reason="manual", interrupt=True)
    await reading
    stopped = turn.ended().stopped
    assert stopped is not None
    assert (stopped.steps, stopped.survivors) == (("interrupt",), 0)
    await turn.release()


async def test_another_server_takes_the_turn_up(
    place: Place, real: MakeProgram, start_model: StartModel
) -> None:
    command = "until [ -e gate ]; do sleep 0.02; done; echo through"
    server = start_model(
        [{"text": "One.", "tool": "shell", "arguments": {"command": command}}, {"text": "Two."}]
    )
    start = begin(place)
    first = await confined(place, real, server.url).start(start, no_input)
    await eventually(lambda: server.requests, within=90)
    await first.leave()
    second = await confined(place, real, server.url).adopt(replace(start, token=2), no_input)
    assert second is not None
    (start.workspace / "gate").touch()
    updates = await read(second)
    assert second.ended().outcome.stop_reason == "end_turn"
    assert [u.text for u in updates if isinstance(u, Message)] == ["One.", "Two."]
    await second.release()


async def test_a_turn_that_may_reach_only_its_model(
    place: Place, real: MakeProgram, start_model: StartModel
) -> None:
    server = start_model([{"tool": "shell", "arguments": {"command": "echo hi > a.txt"}}, {"text": "DONE."}])
    host = server.url.partition("://")[2]
    turn = await confined(place, real, server.url, Network(allowed=(host,))).start(begin(place), no_input)
    updates = await read(turn)
    assert turn.ended().outcome.failure is None
    assert [u.text for u in updates if isinstance(u, Message)] == ["DONE."]
    assert (place.data_dir / "workspace/a.txt").exists()
    await turn.release()
