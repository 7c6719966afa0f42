"""What agents ask is put to the editor's user, and the choice reaches the agent; nothing is decided without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import acp
import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import Server
from tests.editor.driver import Link, editor, inside

from overnight.testing.agents import ACP_AGENT
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
COMMAND = {
    "toolCallId": "call-1",
    "title": "echo hello",
    "kind": "execute",
    "rawInput": {"command": "echo hello"},
}
STARTED = ["update", {"sessionUpdate": "tool_call", "status": "pending", **COMMAND}]
DONE = [
    "update",
    {
        "sessionUpdate": "tool_call_update",
        "toolCallId": "call-1",
        "status": "completed",
        "content": [{"type": "content", "content": {"type": "text", "text": "hello"}}],
    },
]


EDIT = {
    "toolCallId": "call-2",
    "title": "Edit notes.txt",
    "kind": "edit",
    "locations": [{"path": "notes.txt"}],
    "content": [{"type": "diff", "path": "notes.txt", "oldText": "old\n", "newText": "new\n"}],
}
CHANGING = {
    "toolCallId": "call-3",
    "title": "Edit notes.txt",
    "kind": "edit",
    "locations": [{"path": "notes.txt"}],
}
AGENTS: dict[str, Sequence[Any]] = {
    "polite": [["say", "May I? "], STARTED, ["permission", COMMAND], DONE, ["say", " thanks"]],
    "asker": [["permission", COMMAND], ["say", " and on"]],
    "writer": [["permission", EDIT]],
    "changing": [["permission", CHANGING]],
}


def config() -> str:
    """Agents that can ask."""
    tables = []
    for name, moves in AGENTS.items():
        command = json.dumps([sys.executable, str(ACP_AGENT), json.dumps({"turns": [list(moves)]})])
        tables.append(f'[backends.{name}]\nkind = "acp"\ncommand = {command}\n')
    return "\n".join(tables)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all but those that kill it."""
    server = Server(root=tmp_path_factory.mktemp("server"), config=config()).start()
    yield server
    server.stop()


def asking(server: Server, backend: str) -> AbstractAsyncContextManager[Link]:
    """An editor with that agent, which asks for everything."""
    return inside(server, backend=backend, approval_policy="ask_all")


async def test_a_command_is_asked_shown_and_allowed(server: Server) -> None:
    async with asking(server, "polite") as link:
        session = await link.session(server.workspace("p0"))
        assert session.modes.current_mode_id == "ask_all"
        prompt = link.prompt(session.session_id, "go")
        question = await link.window.asked()
        assert question.tool_call.kind == "execute"
        assert "echo hello" in question.tool_call.title
        assert [option.kind for option in question.options] == [
            "allow_once", "allow_always", "reject_once", "reject_always",
        ]  # fmt: skip
        always = question.options[1]
        assert always.name == "Always allow this in the session: tool execute, command echo hello"
        assert link.window.calls()[question.tool_call.tool_call_id]["title"] == "echo hello"
        question.answer("allow_once")
        assert (await prompt).stop_reason == "end_turn"
        assert "[allow_once]" in link.window.text()
        assert link.window.text().startswith("May I? ")
        calls = list(link.window.calls().values())
        assert [(call["kind"], call["status"]) for call in calls] == [("execute", "completed")]
        assert len(link.window.questions) == 1


async def test_a_rejection_reaches_the_agent(server: Server) -> None:
    async with asking(server, "asker") as link:
        session = await link.session(server.workspace("p1"))
        prompt = link.prompt(session.session_id, "go")
        question = await link.window.asked()
        question.answer("reject_once")
        assert (await prompt).stop_reason == "end_turn"
        assert "[reject_once]" in link.window.text()
        call = link.window.calls()[question.tool_call.tool_call_id]
        assert call["status"] == "failed"


async def test_a_change_of_a_file_is_shown_side_by_side(server: Server) -> None:
    work = server.workspace("p2")
    (work / "notes.txt").write_text("old\n")
    async with asking(server, "writer") as link:
        session = await link.session(work)
        prompt = link.prompt(session.session_id, "go")
        question = await link.window.asked()
        shown = [content for content in question.tool_call.content if content.type == "diff"]
        assert [(Path(one.path).name, one.old_text, one.new_text) for one in shown] == [
            ("notes.txt", "old\n", "new\n")
        ]
        question.answer("allow_once")
        assert (await prompt).stop_reason == "end_turn"


async def test_an_action_that_changed_while_it_was_shown_is_asked_again(server: Server) -> None:
    work = server.workspace("p3")
    (work / "notes.txt").write_text("old\n")
    async with asking(server, "changing") as link:
        session = await link.session(work)
        prompt = link.prompt(session.session_id, "go")
        question = await link.window.asked()
        (work / "notes.txt").unlink()
        (work / "notes.txt").symlink_to("/etc/hostname")
        question.answer("allow_once")
        again = await link.window.asked(2)
        assert [Path(place.path).name for place in again.tool_call.locations] == ["hostname"]
        again.answer("reject_once")
        assert (await prompt).stop_reason == "end_turn"
        assert "[reject_once]" in link.window.text()


async def test_a_question_that_the_editor_gives_up_stays_open(server: Server) -> None:
    async with asking(server, "asker") as link:
        session = await link.session(server.workspace("p4"))
        prompt = link.prompt(session.session_id, "go")
        (await link.window.asked()).answer(None)
        await link.window.until(
            lambda: "overnight approve apr_" in link.window.text("agent_thought_chunk"),
            "the way to decide later",
        )
        query = {"session_id": session.session_id, "state": "pending"}
        approval = server.http.get("/api/v1/approvals", params=query).json()["items"][0]
        body = {"option": "allow_once", "digest": approval["digest"]}
        assert server.http.post(f"/api/v1/approvals/{approval['id']}/resolve", json=body).status_code == 200
        assert (await prompt).stop_reason == "end_turn"
        assert "[allow_once]" in link.window.text()


async def test_cancel_while_a_question_is_open(server: Server) -> None:
    async with asking(server, "asker") as link:
        session = await link.session(server.workspace("p5"))
        prompt = link.prompt(session.session_id, "go")
        question = await link.window.asked()
        await link.agent.cancel(session_id=session.session_id)
        question.answer(None)
        assert (await prompt).stop_reason == "cancelled"
        assert "overnight approve" not in link.window.text("agent_thought_chunk")


async def test_a_question_outlives_the_server_and_the_editor(serve: Start) -> None:
    server = serve({}, config=config())
    async with editor(server.env(), server.root, "--backend", "asker", "--policy", "ask_all") as link:
        session = await link.session(server.workspace())
        prompt = link.prompt(session.session_id, "go")
        await link.window.asked()
        assert link.process is not None
        link.process.kill()
        with pytest.raises((ConnectionError, acp.RequestError)):
            await prompt
    server.kill()
    server.start()
    async with inside(server) as link:
        await link.agent.resume_session(
            session_id=session.session_id, cwd=str(server.workspace()), mcp_servers=[]
        )
        question = await link.window.asked()
        question.answer("allow_once")
        await link.window.until(lambda: "and on" in link.window.text(), "the agent goes on")
        assert "[allow_once]" in link.window.text()
        runs = f"/api/v1/sessions/{session.session_id}/runs"
        await eventually(
            lambda: [run["state"] for run in server.http.get(runs).json()["items"]] == ["completed"],
            what="the run is done",
        )
