"""Conversations that are interfered with: said now, taken back, cancelled, sent twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FULL
from tests.engine.rig import ME
from tests.engine.talking import answering, history, made, post, waiting

from overnight.domain.states import State
from overnight.engine import prompt
from overnight.engine.chat import Posted
from overnight.errors import Draining, MessageTaken
from overnight.ports.tables import Idempotency
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def test_what_is_said_now_is_put_into_the_turn(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    assert posted.run is not None
    agent = await server.agent(backend)
    await post(server, session, "later")
    now = await post(server, session, "quick", "now")
    assert (now.steer_how, now.run and now.run.id) == ("inject", posted.run.id)
    await eventually(lambda: agent.injected == ["quick"])

    async def carried() -> bool:
        return await waiting(server, session) == ["later"]

    await eventually(carried)
    for count in (1, 2):
        (await server.agent(backend, count)).go.set()
    await server.until(posted.run)
    assert [one.start.prompt for one in backend.agents] == ["one\n", "later\n"]
    assert [text for role, text in await history(server, session) if role == "user"] == [
        "one",
        "quick",
        "later",
    ]


async def test_what_is_said_now_interrupts_where_nothing_can_be_put_in(rig: Make) -> None:
    backend = fake(answering, capabilities=replace(FULL, inject=False))
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    assert posted.run is not None
    await server.agent(backend)
    await post(server, session, "later")
    assert (await post(server, session, "stop that", "now")).steer_how == "interrupt"
    for count in (2, 3):
        (await server.agent(backend, count)).go.set()
    await server.until(posted.run)
    second = backend.agents[1].start.prompt
    assert second.endswith("# The message to answer now\n\nstop that\n")
    assert "done again" in second
    assert backend.agents[2].start.prompt == "later\n"
    assert await waiting(server, session) == []


async def test_a_cancelled_run_leaves_what_waits_for_the_next_one(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    assert posted.run is not None
    await server.agent(backend)
    await post(server, session, "two")
    await server.control(posted.run, "cancel")
    await server.until(posted.run)
    assert await waiting(server, session) == ["two"]
    again = await post(server, session, "three")
    assert again.run is not None
    assert again.run.id != posted.run.id
    for count in (2, 3):
        (await server.agent(backend, count)).go.set()
    await server.until(again.run)
    assert [one.start.prompt for one in backend.agents] == ["one\n", "two\n", "three\n"]


async def test_a_waiting_message_can_be_taken_back_until_its_turn(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    assert posted.run is not None
    agent = await server.agent(backend)
    second, third = await post(server, session, "two"), await post(server, session, "three")
    for _ in range(2):
        await server.chat.remove(session.id, second.message.id, ME)
    with pytest.raises(MessageTaken):
        await server.chat.remove(session.id, posted.message.id, ME)
    agent.go.set()
    (await server.agent(backend, 2)).go.set()
    await server.until(posted.run)
    assert [one.start.prompt for one in backend.agents] == ["one\n", "three\n"]
    with pytest.raises(MessageTaken):
        await server.chat.remove(session.id, third.message.id, ME)


async def test_a_steer_that_was_taken_back_is_never_said(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    assert posted.run is not None
    await server.agent(backend)
    await server.control(posted.run, "pause", when="now")
    await server.until(posted.run, State.PAUSED)
    now = await post(server, session, "quick", "now")
    assert now.steer_how == "queue"
    await server.chat.remove(session.id, now.message.id, ME)
    await server.control(posted.run, "resume")
    (await server.agent(backend, 2)).go.set()
    await server.until(posted.run)
    assert "quick" not in backend.agents[1].start.prompt
    assert backend.agents[1].start.prompt.endswith("# The message to answer now\n\none\n")


async def test_no_message_is_taken_while_the_server_takes_no_work(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    await server.agent(backend)
    server.service.drain()
    with pytest.raises(Draining):
        await post(server, session, "two")
    assert await waiting(server, session) == []
    backend.agents[0].go.set()
    assert posted.run is not None
    await server.until(posted.run)


async def test_a_retry_of_the_request_shows_the_run_that_has_it(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)

    async def again() -> Posted:
        key = Idempotency(route="r", key="k", body_hash="h")
        return await server.chat.post(session.id, "one", "after_turn", ME, idempotency=key)

    first, second = await again(), await again()
    assert (first.message.id, first.new, second.new) == (second.message.id, True, False)
    assert second.run is not None
    (await server.agent(backend)).go.set()
    await server.until(second.run)
    third = await again()
    assert (third.run and third.run.id, third.message.state, third.message.turn) == (second.run.id, "sent", 1)
    assert len(backend.agents) == 1


async def test_a_live_run_of_another_mode_is_steered_and_then_waited_for(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    job = await server.submit("job", mode="oneshot", session_id=session.id)
    agent = await server.agent(backend)
    now = await post(server, session, "quick", "now")
    assert (now.run and now.run.id, now.steer_how) == (job.id, "inject")
    await eventually(lambda: agent.injected == ["quick"])
    later = await post(server, session, "later")
    assert later.run is not None
    assert later.run.id != job.id
    agent.go.set()
    (await server.agent(backend, 2)).go.set()
    await server.until(later.run)
    assert backend.agents[1].start.prompt == "later\n"


async def test_what_is_taken_back_at_the_last_moment_is_not_said(rig: Make) -> None:
    """Between the putting together of a turn and its beginning, the message goes."""
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    agent = await server.agent(backend)
    second = await post(server, session, "two")
    await post(server, session, "three")
    assembled = 0
    gather = prompt.gather

    def slow(*given: Any) -> prompt.Material:
        nonlocal assembled
        assembled += 1
        if assembled == 1:
            asyncio.run_coroutine_threadsafe(
                server.chat.remove(session.id, second.message.id, ME), loop
            ).result(5)
        return gather(*given)

    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overnight.engine.prompt.gather", slow)
        agent.go.set()
        (await server.agent(backend, 2)).go.set()
        assert posted.run is not None
        await server.until(posted.run)
    assert assembled == 2
    assert [one.start.prompt for one in backend.agents] == ["one\n", "three\n"]
    assert [text for role, text in await history(server, session) if role == "user"] == ["one", "three"]
