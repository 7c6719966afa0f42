"""Conversations: a turn for each message, in order, each said once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FULL, FakeAgent
from tests.engine.rig import ME, Rig
from tests.engine.talking import answering, at_once, history, made, post, waiting

from overnight.domain.session import Session, SessionMessage
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.domain.values import Failure
from overnight.errors import SessionExpired, TooManyRequests

pytestmark = pytest.mark.anyio


async def test_messages_get_a_turn_each_in_order(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server, config={"workspace": str(server.workspace()), "model": "m1"})
    first = await post(server, session, "one")
    assert first.run is not None
    agent = await server.agent(backend)
    assert (agent.start.prompt, agent.start.model) == ("one\n", "m1")
    later = [await post(server, session, text) for text in ("two", "three")]
    assert [posted.run and posted.run.id for posted in later] == [first.run.id] * 2
    assert await waiting(server, session) == ["two", "three"]
    assert await history(server, session) == [("user", "one")]
    for count in (1, 2, 3):
        (await server.agent(backend, count)).go.set()
    done = await server.until(first.run)
    assert done.completion is not None
    assert (done.completion.by, done.stats.turns) == ("one_turn", 3)
    assert [one.start.prompt for one in backend.agents] == ["one\n", "two\n", "three\n"]
    assert [one.start.resume for one in backend.agents] == [{}, {"thread": "t1"}, {"thread": "t1"}]
    texts = ["one", "answer to one", "two", "answer to two", "three", "answer to three"]
    assert [text for _, text in await history(server, session)] == texts
    found = await server.sessions.get(session.id, ME)
    assert (found.state, found.phase, found.step, found.version) == ("active", "completed", 3, 1)


async def test_the_next_run_goes_on_where_the_conversation_was(rig: Make) -> None:
    backend = fake(at_once)
    server = await rig(backend)
    session = await made(server)
    folders = []
    for text in ("one", "two"):
        posted = await post(server, session, text)
        assert posted.run is not None
        await server.until(posted.run)
        folders.append((await server.run(posted.run)).workspace)
    assert folders[0] == folders[1]
    assert backend.agents[1].start.resume == {"thread": "t1"}
    assert backend.agents[1].start.prompt == "two\n"


async def test_a_backend_that_cannot_resume_is_told_the_conversation(rig: Make) -> None:
    backend = fake(at_once, capabilities=replace(FULL, resume=False))
    server = await rig(backend)
    session = await made(server, variables={"branch": "main"})
    for text in ("one", "two"):
        posted = await post(server, session, text)
        assert posted.run is not None
        await server.until(posted.run)
    prompt = backend.agents[1].start.prompt
    assert prompt.index("## User\n\none") < prompt.index("## Assistant\n\nanswer to")
    assert '"branch":"main"' in prompt
    assert prompt.endswith("# The message to answer now\n\ntwo\n")
    assert prompt.count("two") == 1


async def test_a_submitted_chat_begins_with_its_goal(rig: Make) -> None:
    backend = fake(at_once)
    server = await rig(backend)
    run = await server.submit("hello", mode="chat")
    done = await server.until(run)
    assert done.state is State.COMPLETED
    session = await server.sessions.get(done.session_id, ME)
    assert (session.state, session.mode, session.phase) == ("completed", "chat", "completed")
    posted = await post(server, session, "more")
    assert posted.run is not None
    await server.until(posted.run)
    assert [one.start.prompt for one in backend.agents] == ["hello\n", "more\n"]
    types = [event for event in await _session_types(server, session) if event.startswith("session.")]
    assert types == [
        "session.created", "session.message_received", "session.message_taken", "session.completed",
        "session.resumed", "session.message_received", "session.message_taken", "session.completed",
    ]  # fmt: skip


async def _session_types(server: Rig, session: Session) -> list[str]:
    found = await server.store.read(lambda tx: tx.events.after(session.pk, 0, 1000))
    return [event.type for event in found]


async def test_after_a_crash_a_message_is_said_again_but_not_counted_twice(rig: Make) -> None:
    """The agent dies with its server: the turn is done again, with the same words."""
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server)
    posted = await post(server, session, "one")
    await post(server, session, "two")
    assert posted.run is not None
    await server.agent(backend)
    await server.crash()
    backend.kill()
    after = await rig(backend, root=server.root)
    for count in (2, 3):
        (await after.agent(backend, count)).go.set()
    done = await after.until(posted.run)
    assert done.stats.turns == 2
    prompts = [one.start.prompt for one in backend.agents]
    assert prompts[1].endswith("# The message to answer now\n\none\n")
    assert "done again" in prompts[1]
    assert prompts[2] == "two\n"
    assert [text for role, text in await history(after, session) if role == "user"] == ["one", "two"]


async def test_many_who_speak_at_once_start_one_run(rig: Make) -> None:
    backend = fake(at_once)
    server = await rig(backend)
    session = await made(server)
    posted = await asyncio.gather(*(post(server, session, f"m{n}") for n in range(20)))
    runs = {one.run.id for one in posted if one.run}
    for one in posted:
        assert one.run is not None
        await server.until(one.run)
    said = [text for role, text in await history(server, session) if role == "user"]
    assert sorted(said) == sorted(f"m{n}" for n in range(20))
    assert len(backend.agents) == 20
    assert len(runs) <= 3  # one, unless it had ended already


async def test_a_run_whose_message_another_has_taken_is_done(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    first = await server.submit("one", mode="chat")
    await server.agent(backend)
    second = await server.submit("two", mode="chat", session_id=first.session_id)
    for count in (1, 2):
        (await server.agent(backend, count)).go.set()
    await server.until(first)
    done = await server.until(second)
    assert (done.state, done.stats.turns) == (State.COMPLETED, 0)
    assert [one.start.prompt for one in backend.agents] == ["one\n", "two\n"]


async def test_only_so_many_may_wait(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.engine.session_moves.MAX_QUEUED", 2)
    server = await rig(fake(answering), supervise=False)
    session = await made(server)
    for text in ("one", "two"):
        await post(server, session, text)
    with pytest.raises(TooManyRequests):
        await post(server, session, "three")
    assert await waiting(server, session) == ["one", "two"]


async def test_an_expired_session_takes_nothing(rig: Make) -> None:
    server = await rig(fake(at_once))
    session = await made(server)
    await server.store.write(lambda tx: tx.sessions.save(replace(session, state="expired")))
    with pytest.raises(SessionExpired):
        await post(server, session, "one")
    with pytest.raises(SessionExpired):
        await server.submit("one", session_id=session.id)
    assert await waiting(server, session) == []


async def test_a_number_of_turns_ends_a_conversation_and_keeps_what_waits(rig: Make) -> None:
    backend = fake(answering)
    server = await rig(backend)
    session = await made(server, config={"limits": {"turns": 1}})
    posted = await post(server, session, "one")
    assert posted.run is not None
    agent = await server.agent(backend)
    await post(server, session, "two")
    agent.go.set()
    done = await server.until(posted.run)
    assert done.completion is not None
    assert done.completion.by == "limit"
    assert await waiting(server, session) == ["two"]


async def test_long_words_are_kept_whole_and_long_answers_cut(rig: Make) -> None:
    async def talkative(agent: FakeAgent) -> TurnOutcome | None:
        agent.say("ä" * 200_000)
        return None

    server = await rig(fake(talkative))
    session = await made(server)
    posted = await post(server, session, "x" * 200_000)
    assert posted.run is not None
    await server.until(posted.run)
    user, answer = await server.store.read(lambda tx: tx.sessions.messages(session.pk, 9))
    assert user == SessionMessage(role="user", text="x" * 200_000, at=user.at, run_id=posted.run.id, turn=1)
    assert len(answer.text.encode()) < 263_000
    assert answer.text.endswith("…]")


async def test_a_preview_shows_what_would_be_said(rig: Make) -> None:
    server = await rig(fake(at_once), supervise=False)
    session = await made(server, variables={"branch": "main"})
    found = await server.service.preview(RunSpec(goal="hello", session_id=session.id), ME)
    assert found.prompt.endswith("# The message to answer now\n\nhello\n")
    assert '"branch":"main"' in found.prompt
    plain = await server.service.preview(RunSpec(goal="hello", mode="chat"), ME)
    assert plain.prompt == "hello\n"


async def test_a_fallback_answers_the_same_message(rig: Make) -> None:
    async def refuse(agent: FakeAgent) -> TurnOutcome | None:
        return TurnOutcome(failure=Failure(code="no", message="not today"))

    broken, whole = fake(refuse, name="broken"), fake(at_once)
    server = await rig(broken, whole)
    session = await made(server, config={"backend": "broken", "fallback": ["fake"]})
    posted = await post(server, session, "one")
    assert posted.run is not None
    await server.until(posted.run)
    assert whole.agents[0].start.prompt.endswith("# The message to answer now\n\none\n")
    assert [text for role, text in await history(server, session) if role == "user"] == ["one"]
