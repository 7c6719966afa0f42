"""Nothing is lost or doubled when the server, or the editor, goes away in the middle."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import acp
import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import Server
from tests.editor.driver import Link, editor, inside

from overnight.config import server_file
from overnight.testing.agents import ACP_AGENT
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
SPENDER = [["print", "I spend."], {"sentinel": {"type": "usage.recorded", "input": 60, "output": 40}}]
"""A budget is looked at when another message waits: nothing is left to be spent on otherwise."""


async def session_with_budget(link: Link, server: Server, tokens: int) -> str:
    """A session whose runs have a budget, which only its configuration can say."""
    session = await link.session(server.workspace("budget"))
    path = f"/api/v1/sessions/{session.session_id}"
    config = server.http.get(path).json()["config"]
    changed = server.http.patch(path, json={"config": {**config, "limits": {"tokens": tokens}}})
    assert changed.status_code == 200, changed.text
    return str(session.session_id)


async def spend(link: Link, server: Server, tokens: int = 50) -> tuple[str, Any, Any]:
    """Two prompts of which the first spends the budget: the session, and what will be their answers."""
    session_id = await session_with_budget(link, server, tokens)
    first = link.prompt(session_id, "spend")
    second = link.prompt(session_id, "spend more")
    return session_id, first, second


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all but those that kill it."""
    root = tmp_path_factory.mktemp("server")
    scripts = {
        "spender": SPENDER,
        "works": [["print", "before"], {"wait_for": [str(root / "gate")]}, ["print", "after"]],
        "demo": [["print", "answer $TURN"], {"append": ["made.txt", "x"]}],
    }
    server = Server(root=root, scripts=scripts).start()
    yield server
    server.stop()


def pending(server: Server, session_id: str) -> list[dict[str, Any]]:
    query = {"session_id": session_id, "state": "pending"}
    return list(server.http.get("/api/v1/approvals", params=query).json()["items"])


async def test_a_server_killed_during_a_prompt_comes_back_and_nothing_is_told_twice(
    serve: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    server = serve({"works": [{"lines": {"count": 20}}, {"wait_for": [str(gate)]}, ["print", "the end"]]})
    async with inside(server, backend="works") as link:
        session = await link.session(server.workspace())
        prompt = link.prompt(session.session_id, "go")
        await link.window.until(lambda: "line 20" in link.window.text(), "the first lines")
        server.kill()
        server.start()
        gate.touch()
        assert (await prompt).stop_reason == "end_turn"
        lines = [line for line in link.window.text().splitlines() if line]
        assert lines == [*(f"line {number}" for number in range(1, 21)), "the end"]
        assert "worked on meanwhile" in link.window.text("agent_thought_chunk")


async def test_a_message_that_is_cut_by_a_kill_is_told_once(serve: Start, tmp_path: Path) -> None:
    moves = [
        ["say", "one "],
        ["say", "two "],
        ["wait_for", str(tmp_path / "gate")],
        ["say", "three"],
        ["think", "so"],
    ]
    command = json.dumps([sys.executable, str(ACP_AGENT), json.dumps({"turns": [moves]})])
    server = serve({}, config=f'[backends.speaker]\nkind = "acp"\ncommand = {command}\n')
    async with inside(server, backend="speaker") as link:
        session = await link.session(server.workspace())
        prompt = link.prompt(session.session_id, "go")
        await link.window.until(lambda: link.window.text() == "one two ", "the first pieces")
        server.kill()
        server.start()
        (tmp_path / "gate").touch()
        assert (await prompt).stop_reason == "end_turn"
        assert link.window.text() == "one two three"
        assert [text for text in link.window.text("agent_thought_chunk").splitlines() if text[0] != "["] == [
            "so"
        ]


async def test_a_prompt_while_the_server_is_away_waits_for_it(serve: Start) -> None:
    server = serve({"demo": [["print", "answer $TURN"]]})
    async with inside(server, backend="demo") as link:
        session = await link.session(server.workspace())
        server.kill()
        prompt = link.prompt(session.session_id, "go")
        await eventually(lambda: len(link.words().splitlines()) > 1, what="the loss is noticed")
        server.start()
        assert (await prompt).stop_reason == "end_turn"
        assert link.window.text() == "answer 1\n"


async def test_a_spent_budget_is_put_to_the_user_who_raises_it(server: Server) -> None:
    async with inside(server, backend="spender") as link:
        session_id, first, second = await spend(link, server)
        question = await link.window.asked()
        names = {option.option_id: (option.kind, option.name) for option in question.options}
        assert names == {
            "raise": ("allow_once", "Raise the budget and go on: 200 tokens"),
            "finish": ("reject_once", "Finish here"),
            "cancel": ("reject_always", "Cancel the run"),
        }
        assert "100 of 50 tokens" in question.tool_call.title
        question.answer("raise")
        assert (await first).stop_reason == "end_turn"
        assert (await second).stop_reason == "end_turn"
        assert link.window.calls()[question.tool_call.tool_call_id]["status"] == "completed"
        assert pending(server, session_id) == []


async def test_what_is_decided_elsewhere_is_withdrawn_from_the_editor(server: Server) -> None:
    async with inside(server, backend="spender") as link:
        session_id, first, second = await spend(link, server)
        question = await link.window.asked()
        approval = pending(server, session_id)[0]
        body = {"option": "finish", "digest": approval["digest"]}
        done = server.http.post(f"/api/v1/approvals/{approval['id']}/resolve", json=body)
        assert done.status_code == 200, done.text
        assert (await first).stop_reason == "end_turn"
        assert (await second).stop_reason == "end_turn"
        assert "waits in the session" in link.window.text("agent_thought_chunk")
        await link.window.until(
            lambda: link.window.calls()[approval["id"]]["status"] != "pending", "the decision"
        )
        assert "finish, decided by" in str(link.window.calls()[approval["id"]]["content"])
        # The editor answers all the same, too late: that harms nothing.
        await eventually(lambda: link.window.withdrawn, what="the question to be withdrawn")
        assert len(link.window.withdrawn) == 1
        question.answer("raise")
        await link.agent.list_sessions()
        assert server.run(approval["run_id"])["state"] == "completed"


async def test_an_editor_killed_while_it_asks_is_asked_again_when_it_comes_back(serve: Start) -> None:
    server = serve({"spender": SPENDER})
    async with editor(server.env(), server.root, "--backend", "spender") as link:
        session_id, first, second = await spend(link, server)
        await link.window.asked()
        assert link.process is not None
        link.process.kill()
        for prompt in (first, second):
            with pytest.raises((ConnectionError, acp.RequestError)):
                await prompt
    run_id = pending(server, session_id)[0]["run_id"]
    assert server.run(run_id)["state"] == "waiting"
    server.kill()
    server.start()
    async with inside(server) as link:
        await link.agent.load_session(session_id=session_id, cwd=str(server.workspace()), mcp_servers=[])
        assert link.window.text("user_message_chunk") == "spend"
        assert link.window.text() == "I spend."
        question = await link.window.asked()
        question.answer("finish")
        await eventually(lambda: server.run(run_id)["state"] == "completed", what="the run is finished")


async def test_a_run_goes_on_when_its_editor_ends_and_the_next_one_sees_the_rest(server: Server) -> None:
    async with editor(server.env(), server.root, "--backend", "works") as link:
        session = await link.session(server.workspace("goes_on"))
        prompt = link.prompt(session.session_id, "go")
        await link.window.until(lambda: "before" in link.window.text(), "work")
    with pytest.raises((ConnectionError, acp.RequestError)):
        await prompt
    async with inside(server) as link:
        listed = await link.agent.list_sessions(cwd=str(server.workspace("goes_on")))
        assert [one.session_id for one in listed.sessions] == [session.session_id]
        await link.agent.load_session(
            session_id=session.session_id, cwd=str(server.workspace("goes_on")), mcp_servers=[]
        )
        assert link.window.text("user_message_chunk") == "go"
        (server.root / "gate").touch()
        await link.window.until(lambda: "after" in link.window.text(), "the rest")
        second = link.prompt(session.session_id, "more")
        assert (await second).stop_reason == "end_turn"


async def test_a_loaded_session_shows_its_past_in_order_and_once(server: Server) -> None:
    work = server.workspace("a_loaded_session_sho")
    async with inside(server, backend="demo") as link:
        session = await link.session(work)
        for text in ("one", "two"):
            await link.prompt(session.session_id, text)
    async with inside(server) as link:
        loaded = await link.agent.load_session(session_id=session.session_id, cwd=str(work), mcp_servers=[])
        assert loaded.modes.current_mode_id == "autonomous"
        told = [
            (
                one.session_update,
                getattr(getattr(one, "content", None), "text", None) or getattr(one, "title", ""),
            )
            for _, one in link.window.updates
        ]
        assert [kind for kind, _ in told] == [
            "user_message_chunk",
            "agent_message_chunk",
            "tool_call",
        ] * 2 or [kind for kind, _ in told] == ["user_message_chunk", "tool_call", "agent_message_chunk"] * 2
        assert [text for kind, text in told if kind != "tool_call"] == ["one", "answer 1", "two", "answer 2"]
        await link.agent.resume_session(session_id=session.session_id, cwd=str(work), mcp_servers=[])
        before = len(link.window.updates)
        await link.prompt(session.session_id, "three")
        assert "answer 3" in "".join(
            one.content.text
            for _, one in link.window.updates[before:]
            if one.session_update == "agent_message_chunk"
        )


async def test_without_a_server_one_is_started_and_started_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = [["print", "before"], {"wait_for": [str(gate)]}, ["print", "after"]]
    server = Server(root=tmp_path, scripts={"works": script})
    environment = server.env()
    del environment["OVERNIGHT_TOKEN"]
    try:
        async with editor(environment, tmp_path, "--backend", "works") as link:
            session = await link.session(server.workspace())
            first = server_file.read(server.data, environment)
            assert first is not None
            prompt = link.prompt(session.session_id, "go")
            await link.window.until(lambda: "before" in link.window.text(), "work")
            os.kill(first.pid, signal.SIGKILL)
            await link.window.until(
                lambda: "worked on meanwhile" in link.window.text("agent_thought_chunk"), "the next server"
            )
            gate.touch()
            assert (await prompt).stop_reason == "end_turn"
            assert link.window.text().split() == ["before", "after"]
            second = server_file.read(server.data, environment)
            assert second is not None
            assert second.pid != first.pid
    finally:
        server.stop()
