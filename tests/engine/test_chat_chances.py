"""Conversations at random: whatever is said, taken back, cancelled and killed in whatever order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FULL, FakeAgent, FakeBackend
from tests.engine.rig import ME, Rig
from tests.engine.talking import history, made, post, waiting

from overnight.domain.session import Session
from overnight.domain.states import FINAL
from overnight.domain.update import SessionKnown, TurnOutcome
from overnight.engine.control import Control
from overnight.errors import InvalidTransition, MessageTaken
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import RunFilter
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
STEPS = 40


async def brief(agent: FakeAgent) -> TurnOutcome | None:
    agent.emit(SessionKnown(state={"thread": "t"}))
    await agent.work(0.003)
    agent.say("ok")
    return None


class Conversation:
    """One session, somebody who talks in it, and everything that can go wrong meanwhile."""

    def __init__(self, rig: Make, backend: FakeBackend, chance: random.Random) -> None:
        self._rig = rig
        self._backend = backend
        self._chance = chance
        self._count = 0
        self.server: Rig
        self.session: Session
        self.posted: dict[str, str] = {}
        """Texts by the ids of their messages, in the order in which they were posted."""
        self.now: set[str] = set()
        self.removed: set[str] = set()

    async def begin(self) -> None:
        self.server = await self._rig(self._backend)
        self.session = await made(self.server)

    async def step(self) -> None:
        deeds = (
            [self.say] * 5 + [self.say_now] * 2 + [self.take_back] * 2 + [self.cancel, self.crash, self.rest]
        )
        await self._chance.choice(deeds)()

    async def say(self) -> None:
        self._count += 1
        message = (await post(self.server, self.session, f"m{self._count}")).message
        self.posted[message.id] = message.text

    async def say_now(self) -> None:
        self._count += 1
        message = (await post(self.server, self.session, f"n{self._count}", "now")).message
        self.posted[message.id] = message.text
        self.now.add(message.text)

    async def take_back(self) -> None:
        waits = await self.server.chat.queued(self.session.id, ME)
        waits = tuple(message for message in waits if message.text not in self.now)
        if not waits:
            return
        message = self._chance.choice(waits)
        try:
            await self.server.chat.remove(self.session.id, message.id, ME)
        except MessageTaken:
            return
        self.removed.add(message.text)

    async def cancel(self) -> None:
        for run in (await self.server.store.read(lambda tx: tx.runs.page(RunFilter(), limit=200))).runs:
            if run.state in FINAL:
                continue
            try:
                await self.server.service.control(run.id, Control(action="cancel"), ME)
            except InvalidTransition:
                continue

    async def crash(self) -> None:
        await self.server.crash()
        if self._chance.random() < 0.5:
            self._backend.kill()
        self.server = await self._rig(self._backend, root=self.server.root)

    async def rest(self) -> None:
        """Until something is said, or no run is left that would."""
        waits = await waiting(self.server, self.session)

        async def moved() -> bool:
            live = await self.server.store.read(lambda tx: tx.sessions.live_runs(self.session.pk))
            return not live or await waiting(self.server, self.session) != waits

        if waits:
            await eventually(moved, within=60, what="something to be said")

    async def end(self) -> None:
        await post(self.server, self.session, "last")

        async def over() -> bool:
            live = await self.server.store.read(lambda tx: tx.sessions.live_runs(self.session.pk))
            return not live and not await waiting(self.server, self.session)

        await eventually(over, within=60, what="everything to be said")


@pytest.mark.parametrize("inject", [True, False], ids=["inject", "interrupt"])
@pytest.mark.parametrize("number", range(3))
async def test_everything_is_said_once_or_taken_back(rig: Make, number: int, inject: bool) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed, "of", number)
    # Nobody watches the workspace: a "crash" of this rig cannot stop a thread that is just beginning to.
    backend = fake(brief, capabilities=replace(FULL, inject=inject, workspace=False))
    talk = Conversation(rig, backend, random.Random(seed))
    await talk.begin()
    for _ in range(STEPS):
        await talk.step()
    await talk.end()
    said = [text for role, text in await history(talk.server, talk.session) if role == "user"]
    assert len(said) == len(set(said)), "something was said twice"
    texts = list(talk.posted.values())
    assert set(said) | talk.removed == {*texts, "last"}, "something was lost"
    assert not set(said) & talk.removed, "something was taken back and said"
    in_turn = [text for text in said if text not in talk.now]
    assert in_turn == [text for text in [*texts, "last"] if text in in_turn], "the order is another"
    found = await talk.server.store.read(lambda tx: tx.sessions.page(SessionFilter(), limit=9))
    assert [session.state for session in found] == ["active"]
