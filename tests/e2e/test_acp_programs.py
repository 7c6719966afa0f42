"""The real agents of the protocol, driven by a real server as the documents say, and over a kill while they wait."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.backends.acp_programs import made_for
from tests.e2e.conftest import Start
from tests.e2e.harness import Server, gap_free
from tests.e2e.test_approvals import overnight, pending

from overnight.backends.acp.catalogue import Name
from overnight.testing.pytest_plugin import StartModel

pytestmark = pytest.mark.real_agents

NAMES: tuple[Name, ...] = ("gemini", "codex-acp", "copilot", "claude-acp", "opencode", "qwen")
PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
Drive = Callable[..., Server]


@pytest.fixture
def drive(serve: Start, folder: Path, start_model: StartModel, agent_program: Callable[[str], Path]) -> Drive:
    def start(name: Name, *moves: dict[str, Any], sandbox: str = "off") -> Server:
        turns = {
            "turns": [list(moves), list(moves)]
        }  # Qwen's first words to the model are a turn of their own
        environment, args, model = made_for(name, start_model(turns).url)
        table = {"program": str(agent_program(name)), "args": list(args), "model": model}
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if value]
        variables = ", ".join(f"{key} = {json.dumps(value)}" for key, value in environment.items())
        lines.append(f"environment = {{ {variables} }}")
        config = f"[backends.{name}]\n" + "\n".join(lines) + "\n"
        return serve(
            {},
            root=folder,
            config=config,
            environment={"OVERNIGHT_GRACE_S": "1", "OVERNIGHT_SANDBOX_MODE": sandbox},
        )

    return start


MOST_KEPT = 50_000_000


def known_good(name: str) -> list[str]:
    """The command that the backend's section ends with, without the program's own name."""
    section = PAGE.read_text().split(f"### {name}\n")[1].split("\n### ")[0]
    found = re.search(r"^Known good: `overnight ([^`]+)`", section, re.MULTILINE)
    assert found is not None, f"the section of {name} names no command"
    return shlex.split(found[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_the_documents_is_good(name: Name, drive: Drive) -> None:
    server = drive(
        name, {"tool": "shell", "arguments": {"command": "echo hi > hello.txt"}}, {"text": "DONE."}
    )
    workspace = server.workspace()
    command = [word.replace("$PWD", str(workspace)) for word in known_good(name)]
    done = overnight(server, *command)
    assert done.returncode == 0, done.stdout + done.stderr + server.words()
    assert (workspace / "hello.txt").read_text() == "hi\n"
    assert weight(server.data / "homes") < MOST_KEPT, (
        "every session keeps what its agents leave in their homes"
    )


def weight(folder: Path) -> int:
    """Bytes of the files beneath a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_confined_conversation_waits_for_leave_over_a_kill_of_the_server(drive: Drive) -> None:
    """What this is all for: somebody talks with an agent, the server dies over its question, and nothing is lost."""
    line = "echo built > out.txt"
    moves = {"tool": "shell", "arguments": {"command": line}}, {"text": "It is built."}
    server = drive("gemini", *moves, sandbox="auto")
    config = {"backend": "gemini", "workspace": str(server.workspace()), "approval_policy": "ask_all"}
    session = server.http.post("/api/v1/sessions", json={"mode": "chat", "config": config}).json()["id"]
    posted = server.http.post(f"/api/v1/sessions/{session}/messages", json={"text": "please build it"}).json()
    (approval,) = pending(server)
    assert (approval["context"]["command"], approval["context"]["binding"]) == (line, True)
    assert approval["id"] in overnight(server, "approvals").stdout
    server.kill()
    server.start()
    assert server.run(posted["run"]["id"])["state"] == "blocked"
    assert overnight(server, "approve", approval["id"]).returncode == 0
    ended = server.until(posted["run"]["id"], "completed")
    assert (ended["attempt"], ended["sandbox_effective"]) == (1, "workspace_write")
    assert (server.workspace() / "out.txt").read_text() == "built\n"
    history = server.http.get(f"/api/v1/sessions/{session}/history").json()["items"]
    assert [(said["role"], said["text"]) for said in history] == [
        ("user", "please build it"), ("assistant", "It is built."),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["codex-acp", *NAMES[3:]])
def test_a_real_agent_waits_for_leave_over_a_kill_of_the_server(name: Name, drive: Drive) -> None:
    server = drive(name, {"tool": "shell", "arguments": {"command": "echo hi >> a.txt"}}, {"text": "DONE."})
    workspace = str(server.workspace())
    run = server.submit(name, mode="oneshot", approval_policy="ask_writes", workspace=workspace)["id"]
    (approval,) = pending(server)
    assert approval["context"]["command"] == "echo hi >> a.txt"
    assert not (server.workspace() / "a.txt").exists()
    server.kill()
    server.start()
    assert overnight(server, "approve", approval["id"]).returncode == 0
    ended = server.until(run, "completed")
    assert (ended["attempt"], (server.workspace() / "a.txt").read_text()) == (1, "hi\n")
    events = server.events(run)
    assert gap_free(events)
    (done,) = (event["data"] for event in events if event["type"] == "command.completed")
    assert done["command"] == "echo hi >> a.txt"
    asked = [event["type"] for event in events if event["type"].startswith("approval.")]
    assert asked == ["approval.requested", "approval.resolved"]
