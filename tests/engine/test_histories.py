"""However much is said in a session, its history stays readable."""

from __future__ import annotations

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import ME

from overnight.domain.states import State
from overnight.engine import sessions
from overnight.engine.sessions import Draw

pytestmark = pytest.mark.anyio


async def test_a_history_grows_by_what_it_can_show(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A huge answer is cut in the history (the log has it), and a page holds a bounded amount of text."""

    async def script(agent: FakeAgent) -> None:
        agent.say("y" * 300_000)

    server = await rig(fake(script))
    session, _ = await server.sessions.create(Draw(name="long"), ME)
    for _ in range(3):
        run = await server.submit(mode="oneshot", session_id=session.id, workspace=None)
        await server.until(run, State.COMPLETED)
    monkeypatch.setattr(sessions, "HISTORY_BYTES", 600_000)
    page = await server.sessions.history(session.id, ME, limit=100, before=None)
    answers = [message.text for message in page.messages if message.role == "assistant"]
    assert (len(answers), page.total, page.before) == (2, 6, 3)
    assert all(answer.endswith("log of the run …]") and len(answer) < 263_000 for answer in answers)
    first = await server.sessions.history(session.id, ME, limit=100, before=page.before)
    assert (len(first.messages), first.before) == (2, None)
