"""What a backend makes of the end of a turn is recorded with the settlement, and so exactly once."""

import asyncio
from pathlib import Path

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent

from overnight.domain.states import State
from overnight.domain.update import Message, Output, SessionKnown
from overnight.engine.scene import Scene
from overnight.engine.settlement import Closing
from overnight.engine.turn_end import TurnEnd

pytestmark = pytest.mark.anyio


async def test_what_is_said_at_the_very_end_is_recorded_once(
    rig: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies when all has been read and the turn is not settled: the next one reads the end once more."""
    looking, dies = asyncio.Event(), asyncio.Event()
    close = Scene.close

    async def slow(self: Scene, end: TurnEnd) -> Closing:
        if not looking.is_set():
            looking.set()
            await dies.wait()
        return await close(self, end)

    async def script(agent: FakeAgent) -> None:
        agent.say("first")
        agent.last = [
            Message(item_id="end", text="the answer"),
            SessionKnown(state={"thread": "t"}),
            Output(stream="stdout", data=b"half a line"),
        ]

    monkeypatch.setattr(Scene, "close", slow)
    backend = fake(script)
    server = await rig(backend, root=tmp_path)
    run = await server.submit(mode="oneshot")
    await looking.wait()
    await server.crash()
    second = await rig(backend, root=tmp_path)
    await second.until(run, State.COMPLETED)
    assert [data["text"] for data in await second.data(run, "message.completed")] == ["first", "the answer"]
    printed = [data["text"] for data in await second.data(run, "output.recorded")]
    assert "".join(printed) == "half a line"
    assert await second.store.read(lambda tx: tx.sessions.backend_state(run.session_pk, "fake")) == {
        "thread": "t",
        "host": run.host_id,
    }
    [turn] = await second.turns(run)
    assert (turn.items, turn.last_message) == (2, "the answer")
