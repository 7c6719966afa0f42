"""From an editor to a real agent program and back: what it asks, where it works, and what a kill leaves of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.backends.acp_programs import made_for
from tests.e2e.harness import Server
from tests.editor.driver import editor

from overnight.testing.agents.install import Name
from overnight.testing.pytest_plugin import StartModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_agents]
COMMAND = "echo hi > a.txt; cat a.txt"
TURNS = [
    [{"text": "I write it.", "tool": "shell", "arguments": {"command": COMMAND}}, {"text": "Done."}],
    [{"text": "You had asked me to write a file."}],
]


async def test_a_command_of_a_real_agent_is_allowed_in_the_editor_after_a_kill(
    outside_tmp: Path, start_model: StartModel, agent_program: Callable[[Name], Path]
) -> None:
    model_server = start_model({"turns": TURNS})
    environment, args, model = made_for("gemini", model_server.url)
    values = ", ".join(f"{name} = {json.dumps(value)}" for name, value in environment.items())
    program = agent_program("gemini")
    config = (
        f'[backends.gemini]\nprogram = "{program}"\nargs = {json.dumps(list(args))}\n'
        f'environment = {{ {values} }}\nmodel = "{model}"\n'
    )
    server = Server(root=outside_tmp, config=config, environment={"OVERNIGHT_SANDBOX_MODE": "auto"}).start()
    try:
        async with editor(server.env(), outside_tmp, "--backend", "gemini", "--policy", "ask_all") as link:
            session = await link.session(server.workspace())
            prompt = link.prompt(session.session_id, "write the file")
            question = await link.window.asked()
            assert question.tool_call.raw_input["command"] == COMMAND
            assert not (server.workspace() / "a.txt").exists()
            server.kill()
            server.start()
            question.answer("allow_once")
            assert (await prompt).stop_reason == "end_turn"
            assert (server.workspace() / "a.txt").read_text() == "hi\n"
            assert link.window.text() == "I write it.Done."
            run = server.http.get(f"/api/v1/sessions/{session.session_id}/runs").json()["items"][0]
            assert (run["state"], run["attempt"]) == ("completed", 1)
            answer = await link.prompt(session.session_id, "what was it?")
            assert answer.stop_reason == "end_turn"
            assert "You had asked me" in link.window.text()
        said = json.dumps([one.body for one in model_server.requests][-1], default=str)
        assert "write the file" in said  # the program goes on with its own session
    finally:
        server.stop()
