"""What an agent elsewhere is still writing, as whoever looks at its run on the server sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from tests.engine.conftest import fake
from tests.engine.fake_backend import FakeAgent
from tests.remote.conftest import Make
from tests.remote.rig import RemoteRig
from tests.remote.test_hostile_workers import Document, hostile, leased

from overnight.client.worker.fragments import MOST_CHARACTERS
from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.update import Delta, ToolStarted, TurnOutcome
from overnight.errors import Forbidden, Unreachable
from overnight.ports.notifier import Subscription, stream_topic
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
WORDS = ["what", "is", "being", "written", "now,", "word", "by", "word"]


async def writing(agent: FakeAgent) -> TurnOutcome | None:
    at = 0
    for word in WORDS:
        agent.emit(Delta(kind="message", item_id="m1", offset=at, text=word + "\n"))
        at += len(word) + 1
        await asyncio.sleep(0)
    await agent.go.wait()
    agent.say("\n".join(WORDS))
    return None


async def heard(subscription: Subscription, wanted: str) -> list[Document]:
    """The fragments, once they say all of it."""
    found: list[Document] = []

    async def all_there() -> bool:
        notices = await subscription.next(0.2)
        found.extend(orjson.loads(one.delta) for one in notices if one.delta is not None)
        return "".join(one["data"]["text"] for one in found) == wanted

    await eventually(all_there, within=60)
    return found


async def shown(server: RemoteRig, run: Run) -> Subscription:
    return server.notifier.subscribe(stream_topic(run.id))


async def test_readers_see_what_is_being_written(rig: Make) -> None:
    backend = fake(writing)
    server = await rig(backend, supervise=False)
    run = await server.submit(mode="oneshot")
    subscription = await shown(server, run)
    await server.supervisor.start()
    wanted = "".join(f"{word}\n" for word in WORDS)
    fragments = await heard(subscription, wanted)
    at = 0
    for one in fragments:
        assert (one["type"], one["run_id"], one["turn"]) == ("message.delta", run.id, 1)
        assert (one["data"]["item_id"], one["data"]["offset"]) == ("m1", at)
        at += len(one["data"]["text"])
    (await server.agent(backend)).go.set()
    await server.until(run, State.COMPLETED)
    assert not [type for type in await server.types(run) if type.endswith(".delta")]
    subscription.close()


async def test_a_server_that_is_away_costs_only_the_live_text(rig: Make) -> None:
    backend = fake(writing)
    server = await rig(backend, supervise=False)
    calls = 0

    async def deliver(path: str, document: Document) -> Document:
        nonlocal calls
        if path == "/show":
            calls += 1
            raise Unreachable("lost")
        return await server.line.ask(path, document)

    server.line.deliver = deliver  # type: ignore[method-assign]
    await server.supervisor.start()
    run = await server.submit(mode="oneshot")
    agent = await server.agent(backend)
    await eventually(lambda: calls > 0, within=60)
    agent.go.set()
    assert (await server.until(run, State.COMPLETED)).attempt == 1
    assert [data["text"] for data in await server.data(run, "message.completed")] == ["\n".join(WORDS)]


async def test_what_waits_is_bounded_and_joined(rig: Make) -> None:
    server, _, run, _ = await leased(rig)
    body: dict[str, Any] = {"type": "message.delta", "turn": 1, "data": {"item_id": "m", "text": "x" * 1000}}
    for number in range(100):
        server.fragments._put(run.id, {**body, "data": {**body["data"], "offset": number * 1000}})
    waiting = server.fragments._pieces
    assert len(waiting) == 1
    assert sum(len(piece.text) for piece in waiting) <= MOST_CHARACTERS
    assert waiting[-1].offset + len(waiting[-1].text) == 100_000, "what is left out is the oldest"


async def test_only_who_holds_a_run_shows_text_of_it(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    subscription = await shown(server, run)
    other = await hostile(server)
    await other.offer("o")
    secret = lease["environment"]["OVERNIGHT_VAR_KEY"]
    good = {
        "run_id": run.id,
        "token": lease["token"],
        "turn": 0,
        "item_id": "m",
        "offset": 0,
        "text": f"it: {secret}",
    }
    assert (await other.call("/show", fragments=[good]))["shown"] == 0
    for bad in ({"token": 77}, {"turn": 5}, {"run_id": "run_" + "0" * 26}):
        assert (await worker.call("/show", fragments=[{**good, **bad}]))["shown"] == 0
    thief = await hostile(server, token_pk=8)
    thief.worker = worker.worker
    with pytest.raises(Forbidden):
        await thief.call("/show", fragments=[good])
    assert (await worker.call("/show", fragments=[good]))["shown"] == 1
    [only] = await heard(subscription, "it: [redacted]")
    assert (only["run_id"], only["session_id"]) == (run.id, run.session_id)
    subscription.close()


async def test_what_an_agent_cannot_say_in_json_is_mended_as_it_is_on_a_server(rig: Make) -> None:
    async def odd(agent: FakeAgent) -> TurnOutcome | None:
        agent.emit(ToolStarted(item_id="t", name="calc", arguments={"n": 1 << 70, "half": "\ud83d"}))
        return None

    server = await rig(fake(odd))
    run = await server.submit(mode="oneshot")
    assert (await server.until(run, State.COMPLETED)).attempt == 1
    [started] = await server.data(run, "tool.started")
    assert started["arguments"] == {"n": str(1 << 70), "half": "\ufffd"}
