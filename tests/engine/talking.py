"""What the tests of conversations have in common: agents that answer, and a person who talks."""

from __future__ import annotations

from typing import Any

from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import ME, Rig

from overnight.domain.session import Session
from overnight.domain.update import SessionKnown, TurnOutcome
from overnight.engine.chat import Posted
from overnight.engine.sessions import Draw


async def answering(agent: FakeAgent) -> TurnOutcome | None:
    """Answers when it is told to go on."""
    agent.emit(SessionKnown(state={"thread": "t1"}))
    await agent.go.wait()
    agent.say(f"answer to {agent.start.prompt.strip()}")
    return None


async def at_once(agent: FakeAgent) -> TurnOutcome | None:
    agent.emit(SessionKnown(state={"thread": "t1"}))
    agent.say(f"answer to {agent.start.prompt.strip()}")
    return None


async def made(server: Rig, **asked: Any) -> Session:
    session, _ = await server.sessions.create(Draw(**asked), ME)
    return session


async def post(server: Rig, session: Session, text: str, when: Any = "after_turn") -> Posted:
    return await server.chat.post(session.id, text, when, ME)


async def history(server: Rig, session: Session) -> list[tuple[str, str]]:
    found = await server.store.read(lambda tx: tx.sessions.messages(session.pk, 1000))
    return [(message.role, message.text) for message in found]


async def waiting(server: Rig, session: Session) -> list[str]:
    return [message.text for message in await server.chat.queued(session.id, ME)]
