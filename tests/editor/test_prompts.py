"""Prompts of an editor through a real server to a real process, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import acp
import pytest
from tests.e2e.harness import Server
from tests.editor.driver import Window, editor, inside

from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where agents look for files that let them go on."""
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gates: Path) -> Iterator[Server]:
    """One server for all of these tests; each uses an agent and a workspace of its own."""
    scripts: dict[str, list[Any]] = {
        "demo": [["print", "I look around."], {"write": ["made.txt", "one\ntwo\n"]}, ["print", "Done."]],
        "bad": [["stderr", "no luck today"], ["exit", 3]],
        "tired": [[["exit", 75]], [["print", "fine $TURN"]]],
        "slow": [
            [["print", "turn $TURN"], {"wait_for": [str(gates / "slow")]}, ["print", "end $TURN"]],
            [["print", "turn $TURN"]],
        ],
        "long": [[["print", "at it"], ["forever"]], [["print", "next"]]],
        "ever": [["forever"]],
        "meet": [["read_prompt"], ["echo_prompt"], {"wait_for": [str(gates / "meet")]}],
    }
    server = Server(root=tmp_path_factory.mktemp("server"), scripts=scripts).start()
    yield server
    server.stop()


async def test_a_prompt_is_answered_with_what_the_agent_says_and_does(server: Server) -> None:
    work = server.workspace("demo_ws")
    async with editor(server.env(), server.root, "--backend", "demo") as link:
        session = await link.session(work)
        answer = await link.prompt(session.session_id, "make a file")
        assert answer.stop_reason == "end_turn"
        assert link.window.text() == "I look around.\nDone.\n"
        calls = list(link.window.calls().values())
        assert [(call["kind"], call["status"], call["title"]) for call in calls] == [
            ("edit", "completed", "Create made.txt (+2 -0)")
        ]
        assert calls[0]["content"] == [
            {"type": "diff", "path": str(work / "made.txt"), "new_text": "one\ntwo\n"}
        ]
        assert (work / "made.txt").exists()


async def test_a_failed_run_is_an_error_that_says_why(server: Server) -> None:
    async with inside(server, backend="bad") as link:
        session = await link.session(server.workspace("bad_ws"))
        with pytest.raises(acp.RequestError) as caught:
            await link.prompt(session.session_id, "try")
        assert caught.value.code == -32603
        assert "exit status 3: no luck today" in str(caught.value)
        assert _data(caught)["code"] == "agent_exit"
        assert _data(caught)["run_id"].startswith("run_")


async def test_a_run_that_is_paused_since_its_agent_cannot_be_had_goes_on_with_the_next_prompt(
    server: Server,
) -> None:
    async with inside(server, backend="tired") as link:
        session = await link.session(server.workspace("tired"))
        path = f"/api/v1/sessions/{session.session_id}"
        config = server.http.get(path).json()["config"] | {"limits": {"attempts": 1}}
        assert server.http.patch(path, json={"config": config}).status_code == 200
        with pytest.raises(acp.RequestError) as caught:
            await link.prompt(session.session_id, "one")
        assert _data(caught)["retryable"] is True
        assert server.run(_data(caught)["run_id"])["state"] == "paused"
        assert (await link.prompt(session.session_id, "two")).stop_reason == "end_turn"
        runs = server.http.get(f"{path}/runs").json()["items"]
        assert [(run["state"], run["turn"]) for run in runs] == [
            ("completed", 3)
        ]  # the failed one, the same again, the second
        assert link.window.text().count("fine") == 2


async def test_a_second_prompt_waits_for_its_turn(server: Server, gates: Path) -> None:
    async with inside(server, backend="slow") as link:
        session = await link.session(server.workspace("slow_ws"))
        first = link.prompt(session.session_id, "one")
        await link.window.until(lambda: "turn 1" in link.window.text(), "the first turn")
        second = link.prompt(session.session_id, "two")
        (gates / "slow").touch()
        assert (await first).stop_reason == "end_turn"
        assert "turn 2" not in link.window.text() or not second.done()
        assert (await second).stop_reason == "end_turn"
        assert link.window.text().split() == ["turn", "1", "end", "1", "turn", "2"]
        runs = server.http.get(f"/api/v1/sessions/{session.session_id}/runs").json()["items"]
        assert {run["mode"] for run in runs} == {"chat"}


async def test_cancel_stops_the_agent_and_keeps_what_waits(server: Server) -> None:
    async with inside(server, backend="long") as link:
        session = await link.session(server.workspace("long_ws"))
        first = link.prompt(session.session_id, "one")
        await link.window.until(lambda: "at it" in link.window.text(), "the first turn")
        second = link.prompt(session.session_id, "two")
        waiting = f"/api/v1/sessions/{session.session_id}/messages"
        await eventually(lambda: server.http.get(waiting).json()["items"], what="the second message waits")
        await link.agent.cancel(session_id=session.session_id)
        assert (await first).stop_reason == "cancelled"
        assert (await second).stop_reason == "cancelled"
        assert [message["text"] for message in server.http.get(waiting).json()["items"]] == ["two"]
        third = link.prompt(session.session_id, "three")
        assert (await third).stop_reason == "end_turn"
        said = [
            entry["text"]
            for entry in server.http.get(f"/api/v1/sessions/{session.session_id}/history").json()["items"]
            if entry["role"] == "user"
        ]
        assert said == ["one", "two", "three"]


async def test_a_cancel_that_overtakes_its_prompt_is_meant_for_it(server: Server) -> None:
    async with inside(server, backend="ever") as link:
        session = await link.session(server.workspace("overtaken"))
        prompt = link.prompt(session.session_id, "Tidy up\nthe tests")
        await asyncio.sleep(0)
        await link.agent.cancel(session_id=session.session_id)
        assert (await prompt).stop_reason == "cancelled"
        path = f"/api/v1/sessions/{session.session_id}"
        await eventually(lambda: server.http.get(path).json()["name"] == "Tidy up", what="the session's name")
        await link.window.until(lambda: "session_info_update" in link.window.kinds(), "the title")


async def test_what_others_do_in_an_open_session_is_shown_too(server: Server) -> None:
    async with inside(server, backend="demo") as link:
        session = await link.session(server.workspace("others"))
        path = f"/api/v1/sessions/{session.session_id}/messages"
        assert server.http.post(path, json={"text": "from elsewhere"}).status_code == 202
        await link.window.until(lambda: "Done." in link.window.text(), "the answer to somebody else")
        assert link.window.text("user_message_chunk") == "from elsewhere"
        assert (await link.prompt(session.session_id, "and now me")).stop_reason == "end_turn"
        assert link.window.text("user_message_chunk") == "from elsewhere"
        assert link.window.text().count("Done.") == 2


async def test_a_deleted_session_is_an_error_and_ends_nothing_else(server: Server) -> None:
    async with inside(server, backend="demo") as link:
        gone = await link.session(server.workspace("gone"))
        stays = await link.session(server.workspace("stays"))
        assert server.http.delete(f"/api/v1/sessions/{gone.session_id}").status_code == 204
        with pytest.raises(acp.RequestError) as caught:
            await link.prompt(gone.session_id, "hello?")
        assert caught.value.code == -32002
        assert (await link.prompt(stays.session_id, "hello")).stop_reason == "end_turn"


async def test_prompts_of_many_sessions_run_at_the_same_time(server: Server, gates: Path) -> None:
    async with inside(server, backend="meet") as link:
        sessions = [await link.session(server.workspace(f"meet{number}")) for number in range(4)]
        prompts = [link.prompt(one.session_id, f"marker-{number}") for number, one in enumerate(sessions)]
        for number, one in enumerate(sessions):
            marked = partial(_said, link.window, one.session_id, f"marker-{number}")
            await link.window.until(marked, f"session {number} works")
        (gates / "meet").touch()
        assert {(await prompt).stop_reason for prompt in prompts} == {"end_turn"}
        for number, one in enumerate(sessions):
            text = link.window.text(session_id=one.session_id)
            assert [other for other in range(4) if f"marker-{other}" in text] == [number]


async def test_a_folder_outside_the_roots_and_what_cannot_be_taken_are_refused(server: Server) -> None:
    async with inside(server, backend="demo") as link:
        with pytest.raises(acp.RequestError) as outside:
            await link.session(Path("/usr"))
        assert outside.value.code == -32602
        assert _data(outside)["code"] == "workspace_refused"
        assert [one for one in _sessions(server) if one["config"].get("workspace") == "/usr"] == []
        session = await link.session(server.workspace("refuse"))
        with pytest.raises(acp.RequestError) as image:
            await link.agent.prompt(session.session_id, [acp.image_block("aGk=", "image/png")])
        assert image.value.code == -32602
        with pytest.raises(acp.RequestError) as blank:
            await link.agent.prompt(session.session_id, [acp.text_block(" \n")])
        assert blank.value.code == -32602
        with pytest.raises(acp.RequestError) as unknown:
            await link.agent.prompt("ses_00000000000000000000000000", [acp.text_block("hi")])
        assert unknown.value.code == -32002
        assert (await link.prompt(session.session_id, "hi")).stop_reason == "end_turn"


async def test_what_is_not_passed_on_is_said(server: Server) -> None:
    async with inside(server, backend="demo") as link:
        mcp = [acp.schema.McpServerStdio(name="notes", command="/bin/true", args=[], env=[])]
        session = await link.agent.new_session(cwd=str(server.workspace("mcp")), mcp_servers=mcp)
        await link.prompt(session.session_id, "hi")
        assert "MCP servers of the editor are not passed on: notes" in link.window.text("agent_thought_chunk")
        assert "not passed on: notes" in link.words()


async def test_modes_are_approval_policies(server: Server) -> None:
    async with inside(server, backend="demo", sandbox="read_only") as link:
        session = await link.session(server.workspace("modes"))
        assert session.modes.current_mode_id == "autonomous"
        assert {mode.id for mode in session.modes.available_modes} == {
            "autonomous", "ask_outside_workspace", "ask_writes", "ask_all",
        }  # fmt: skip
        with pytest.raises(acp.RequestError) as unable:
            await link.agent.set_session_mode(session_id=session.session_id, mode_id="ask_all")
        assert _data(unable)["code"] == "policy_unsupported"
        with pytest.raises(acp.RequestError):
            await link.agent.set_session_mode(session_id=session.session_id, mode_id="plan_review")
        changed = await link.agent.set_config_option(
            session_id=session.session_id, config_id="sandbox", value="workspace_write"
        )
        assert {option.id: option.current_value for option in changed.config_options}[
            "sandbox"
        ] == "workspace_write"
        stored = server.http.get(f"/api/v1/sessions/{session.session_id}").json()["config"]
        assert stored == {
            "workspace": str(server.workspace("modes")),
            "backend": "demo",
            "sandbox": "workspace_write",
        }


def _said(window: Window, session_id: str, text: str) -> bool:
    return text in window.text(session_id=session_id)


def _data(caught: pytest.ExceptionInfo[acp.RequestError]) -> dict[str, Any]:
    assert isinstance(caught.value.data, dict)
    return caught.value.data


def _sessions(server: Server) -> list[dict[str, Any]]:
    return list(server.http.get("/api/v1/sessions").json()["items"])
