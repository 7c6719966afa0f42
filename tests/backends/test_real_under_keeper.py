"""The real programs under a keeper: run to the end, cancelled while the model hangs, taken up by another server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backends.conftest import MakeProgram
from tests.keeper.harness import Place

from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.turn import ProcessTurn
from overnight.clock import SystemClock
from overnight.domain.run import Position
from overnight.domain.update import Message, SessionKnown, ToolCompleted, ToolStarted, Update
from overnight.ports.backend import TurnStart
from overnight.testing.bare_turn import turn_start
from overnight.testing.pytest_plugin import StartModel
from overnight.testing.signals import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.real_agents]


@pytest.fixture
def place(outside_tmp: Path) -> Iterator[Place]:
    found = Place.make(outside_tmp)
    yield found
    found.clear()
    shutil.rmtree(found.runtime_dir, ignore_errors=True)


def backend(place: Place, real: MakeProgram, url: str) -> ProcessBackend:
    return ProcessBackend(real(url), place.spawner, clock=SystemClock(), data_dir=place.data_dir)


def begin(place: Place) -> TurnStart:
    start = turn_start(place.data_dir, sandbox="full_access")
    place.turns.append(start.folder)
    return start


async def no_input(number: int, data: bytes) -> None:
    raise AssertionError("these programs take no input")


async def read(turn: ProcessTurn, updates: list[Update]) -> Position:
    position = Position()
    async for batch in turn.batches():
        updates += batch.updates
        position = batch.position
    return position


async def test_a_turn_runs_to_its_end(place: Place, real: MakeProgram, start_model: StartModel) -> None:
    server = start_model([{"tool": "shell", "arguments": {"command": "echo hi > a.txt"}}, {"text": "DONE."}])
    turn = await backend(place, real, server.url).start(begin(place), no_input)
    updates: list[Update] = []
    await read(turn, updates)
    ended = turn.ended()
    assert (ended.cause, ended.outcome.stop_reason, ended.outcome.failure) == ("exit", "end_turn", None)
    assert [u.text for u in updates if isinstance(u, Message)] == ["DONE."]
    assert (place.data_dir / "workspace" / "a.txt").exists()
    await turn.release()


async def test_a_turn_is_cancelled_while_the_model_hangs(
    place: Place, real: MakeProgram, start_model: StartModel
) -> None:
    server = start_model([{"text": "words that stop", "fault": "hang"}])
    turn = await backend(place, real, server.url).start(begin(place), no_input)
    reading = asyncio.ensure_future(read(turn, []))
    await eventually(lambda: server.requests, within=90)
    await turn.stop(reason="manual", interrupt=True)
    await reading
    stopped = turn.ended().stopped
    assert turn.ended().cause == "stopped"
    assert stopped is not None
    assert stopped.steps[0] == "interrupt"
    assert stopped.survivors == 0
    await turn.release()


async def test_a_tool_that_runs_is_gone_after_cancelling(
    place: Place, real: MakeProgram, start_model: StartModel
) -> None:
    pid_file = place.data_dir / "pid"
    command = (
        f"sh -c 'trap \"\" TERM INT; echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; sleep 300'"
    )
    server = start_model([{"tool": "shell", "arguments": {"command": command}}, {"text": "DONE."}])
    turn = await backend(place, real, server.url).start(begin(place), no_input)
    reading = asyncio.ensure_future(read(turn, []))
    pid = int(await eventually(lambda: pid_file.exists() and pid_file.read_text(), within=90))
    await turn.stop(reason="manual", interrupt=True)
    await reading
    assert not Path(f"/proc/{pid}").exists()
    stopped = turn.ended().stopped
    assert stopped is not None
    assert stopped.survivors == 0
    await turn.release()


async def test_another_server_takes_the_turn_up_without_missing_a_line(
    place: Place, real: MakeProgram, start_model: StartModel
) -> None:
    gate = place.data_dir / "gate"
    command = f"until [ -e {gate} ]; do sleep 0.02; done; echo through"
    server = start_model(
        [{"text": "One.", "tool": "shell", "arguments": {"command": command}}, {"text": "Two."}]
    )
    adapter = backend(place, real, server.url)
    start = begin(place)
    first = await adapter.start(start, no_input)
    updates: list[Update] = []
    position = Position()
    async for batch in first.batches():
        updates += batch.updates
        position = batch.position
        if any(isinstance(update, ToolStarted) for update in updates):
            await first.leave()
    second = await adapter.adopt(replace(start, token=2, position=position), no_input)
    assert second is not None
    gate.touch()
    await read(second, updates)
    assert second.ended().outcome.stop_reason == "end_turn"
    assert [u.text for u in updates if isinstance(u, Message)] == ["One.", "Two."]
    (completed,) = [u for u in updates if isinstance(u, ToolCompleted)]
    assert "through" in completed.output
    assert any(isinstance(u, SessionKnown) for u in updates)
    await second.release()
