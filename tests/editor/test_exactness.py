"""Prompts, cancels and kills of the server at any moment: every prompt is answered, and every word is shown once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import Server, let_pass
from tests.editor.driver import Link, inside

pytestmark = pytest.mark.anyio
KILLS = 3
ROUNDS = 4


async def person(link: Link, session_id: str, chance: random.Random) -> list[str]:
    """Somebody who says one to three things at once and often thinks better of it; how each prompt ended."""
    ended = []
    for number in range(ROUNDS):
        prompts = [link.prompt(session_id, f"{number}.{part}") for part in range(chance.randint(1, 3))]
        if chance.random() < 0.5:
            await asyncio.to_thread(let_pass, chance.random() * 0.4)
            await link.agent.cancel(session_id=session_id)
        ended += [answer.stop_reason for answer in await asyncio.wait_for(asyncio.gather(*prompts), 100)]
    return ended


async def kills(server: Server, chance: random.Random, done: asyncio.Event) -> None:
    for _ in range(KILLS):
        await asyncio.to_thread(let_pass, 0.5 + chance.random())
        if done.is_set():
            return
        server.kill()
        await asyncio.to_thread(server.start)


def shown(link: Link, run_id: str) -> str:
    return "".join(
        update.content.text
        for _, update in link.window.updates
        if update.session_update == "agent_message_chunk" and (update.message_id or "").startswith(run_id)
    )


def words(text: str) -> Sequence[str]:
    return text.split()


async def test_every_prompt_ends_and_every_word_is_shown_once(serve: Start) -> None:
    chance, done = random.Random(7), asyncio.Event()
    server = serve({"talks": [{"lines": {"count": 5}}, ["sleep", 0.05], ["print", "end $TURN"]]})
    async with inside(server, backend="talks") as link:
        sessions = [(await link.session(server.workspace(f"w{number}"))).session_id for number in range(3)]
        killing = asyncio.create_task(kills(server, chance, done))
        ended = await asyncio.gather(
            *(person(link, session_id, random.Random(number)) for number, session_id in enumerate(sessions))
        )
        done.set()
        await killing
        assert {reason for reasons in ended for reason in reasons} == {"end_turn", "cancelled"}
        for session_id in sessions:
            for run in server.http.get(f"/api/v1/sessions/{session_id}/runs").json()["items"]:
                assert words(shown(link, run["id"])) == words(server.printed(run["id"])), run["id"]
