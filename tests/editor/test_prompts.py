"""Prompts of an editor through a real server to a real process, and back."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.conftest import Start
from tests.editor.driver import editor

pytestmark = pytest.mark.anyio
QUIET: dict[str, Any] = {"config": "[sandbox]\nmode = \"off\"\n"}


async def test_a_prompt_is_answered_with_what_the_agent_says_and_does(serve: Start) -> None:
    server = serve({"demo": [["print", "I look around."], {"write": ["made.txt", "one\ntwo\n"]}, ["print", "Done."]]})
    work = server.workspace()
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
