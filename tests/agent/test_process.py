"""The program itself, at its standard streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

PROGRAM = [sys.executable, "-I", "-u", "-m", "overnight", "agent", "--endpoint", "unix:/nowhere/at/all"]


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OVERNIGHT_AGENT_TOKEN": "t"}


def test_it_greets_and_opens_sessions_without_its_server_and_ends_with_its_client(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    asked: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": {"protocolVersion": 1}},
        {"id": 2, "method": "session/new", "params": {"cwd": str(tmp_path), "mcpServers": []}},
    ]
    with subprocess.Popen(PROGRAM, env=environment(tmp_path), stdin=pipe, stdout=pipe, text=True) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        for message in asked:
            agent.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        agent.stdin.flush()
        answers = [json.loads(agent.stdout.readline()) for _ in asked]
        agent.stdin.close()
        assert agent.wait(60) == 0
        assert agent.stdout.read() == ""
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["sessionId"].startswith("ses_")


@pytest.mark.parametrize("which", ["nothing", "input", "output"])
def test_streams_on_which_nobody_can_talk_are_refused_at_once(tmp_path: Path, which: str) -> None:
    (tmp_path / "in").touch()
    with (tmp_path / "in").open() as given, (tmp_path / "out").open("w") as out:
        streams: dict[str, IO[str] | int] = {
            "nothing": {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE},
            "input": {"stdin": given, "stdout": subprocess.PIPE},
            "output": {"stdin": subprocess.PIPE, "stdout": out},
        }[which]  # type: ignore[assignment]
        ended = subprocess.run(
            PROGRAM, env=environment(tmp_path), text=True, check=False, timeout=60, stderr=subprocess.PIPE,
            **streams,  # type: ignore[call-overload]
        )  # fmt: skip
    assert ended.returncode != 0
    assert "neither a pipe nor a terminal" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_endpoint_that_is_none_is_told_at_the_first_prompt(tmp_path: Path) -> None:
    program = [*PROGRAM[:-1], "http://user:secret@nowhere/"]
    with subprocess.Popen(
        program, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None

        def call(id: int, method: str, **params: Any) -> dict[str, Any]:
            assert agent.stdin is not None
            assert agent.stdout is not None
            agent.stdin.write(
                json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}) + "\n"
            )
            agent.stdin.flush()
            found: dict[str, Any] = json.loads(agent.stdout.readline())
            return found

        session = call(1, "session/new", cwd=str(tmp_path), mcpServers=[])["result"]["sessionId"]
        refused = call(2, "session/prompt", sessionId=session, prompt=[{"type": "text", "text": "Go."}])[
            "error"
        ]
        agent.stdin.close()
        assert agent.wait(60) == 0
    assert refused["data"]["code"] == "url_refused"
    assert "secret" not in json.dumps(refused)
