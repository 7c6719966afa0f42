"""A client of the protocol that others have written drives `overnight acp` through a real server."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import Server

from overnight.testing.agents import ACP_AGENT
from overnight.testing.agents.install import Name
from overnight.testing.signals import wait_until

pytestmark = pytest.mark.real_agents
LINGER = ("--ttl", "60")
"""How long the client keeps `overnight acp` between two calls. With a second, a call that came when it was just
over was refused ("Queue owner is shutting down"): whoever keeps a session open closes it."""

COMMAND = {
    "toolCallId": "c1",
    "title": "echo hello",
    "kind": "execute",
    "rawInput": {"command": "echo hello"},
}


@dataclass
class Acpx:
    """The client's command line in front of our server."""

    program: Path
    server: Server
    home: Path

    def start(self, work: Path, agent: str, *arguments: str) -> subprocess.Popen[str]:
        """Begin a call."""
        ours = shlex.join([sys.executable, "-m", "overnight", "acp", *shlex.split(agent)])
        argv = [str(self.program), "--agent", ours, "--cwd", str(work), *LINGER, *arguments]
        environment = {**self.server.env(), "HOME": str(self.home), "PATH": os.environ["PATH"]}
        return subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def __call__(self, work: Path, agent: str, *arguments: str) -> str:
        """What a call printed, once it has ended well."""
        process = self.start(work, agent, *arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (out, err)
        return out


def asker(*moves: Sequence[Any]) -> str:
    return json.dumps([sys.executable, str(ACP_AGENT), json.dumps({"turns": [list(moves)]})])


@pytest.fixture(scope="module")
def acpx(tmp_path_factory: pytest.TempPathFactory, agent_program: Callable[[Name], Path]) -> Iterator[Acpx]:
    """The client and a server."""
    scripts: dict[str, list[Any]] = {
        "demo": [["print", "Turn $TURN."], {"write": ["made.txt", "one\n"]}],
        "long": [[["print", "at it"], ["forever"]], [["print", "next"]]],
    }
    config = (
        f'[backends.asker]\nkind = "acp"\ncommand = {asker(["say", "May I? "], ["permission", COMMAND])}\n'
    )
    program, root = agent_program("acpx"), tmp_path_factory.mktemp("server")
    server = Server(root=root, scripts=scripts, config=config).start()
    home = tmp_path_factory.mktemp("home")
    yield Acpx(program, server, home)
    server.stop()


def test_one_prompt(acpx: Acpx) -> None:
    out = acpx(
        acpx.server.workspace("one"), "--backend demo", "--format", "json", "--json-strict", "exec", "go"
    )
    messages = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    updates = [one["params"]["update"] for one in messages if one.get("method") == "session/update"]
    text = "".join(one["content"]["text"] for one in updates if one["sessionUpdate"] == "agent_message_chunk")
    assert text == "Turn 1.\n"
    assert messages[-1]["result"]["stopReason"] == "end_turn"
    assert (acpx.server.workspace("one") / "made.txt").exists()


def test_a_permission(acpx: Acpx) -> None:
    work = acpx.server.workspace("ask")
    out = acpx(work, "--backend asker --policy ask_all", "--approve-all", "exec", "go")
    assert "[allow_once]" in out
    decided = acpx.server.http.get("/api/v1/approvals", params={"limit": 1}).json()["items"][0]
    assert (decided["state"], decided["decision"]["option"]) == ("resolved", "allow_once")


def test_a_session_over_several_calls_with_a_cancel(acpx: Acpx) -> None:
    work = acpx.server.workspace("many")
    session = acpx(work, "--backend long", "sessions", "new").split()[-1]
    prompt = acpx.start(work, "--backend long", "prompt", "work for ever")
    path = f"/api/v1/sessions/{session}/runs"
    run = wait_until(
        lambda: [one for one in acpx.server.http.get(path).json()["items"] if one["state"] == "running"],
        within=60,
        what="the run works",
    )[0]
    acpx.server.seen(run["id"], "output.recorded")
    acpx(work, "--backend long", "cancel")
    out, _ = prompt.communicate(timeout=120)
    assert "cancelled" in out
    assert acpx.server.run(run["id"])["state"] == "cancelled"
    assert "next" in acpx(work, "--backend long", "prompt", "something else")
    runs = acpx.server.http.get(path).json()["items"]
    assert [(one["state"], one["goal"]) for one in runs] == [
        ("completed", "something else"), ("cancelled", "work for ever"),
    ]  # fmt: skip
    acpx(work, "--backend long", "sessions", "close")
