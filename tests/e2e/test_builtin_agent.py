"""The built-in agent as a run's backend: model on the server, tools here and elsewhere, over every kind of ending."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import TOKEN, Server, gap_free

from overnight.client.socket.connector import Backoff, Connector
from overnight.client.socket.link import Link
from overnight.client.socket.target import Target
from overnight.client.socket.tools import Answer, Hear, Progress, ToolHost
from overnight.testing.model_server import ModelServer
from overnight.testing.signals import wait_until

SECRET = "sk-this-key-stays-with-the-server-0123456789"
PATCH = "*** Begin Patch\n*** Add File: note.txt\n+Hello\n*** End Patch\n"


def shell(command: str) -> dict[str, Any]:
    return {"tool": "shell", "arguments": {"command": ["bash", "-lc", command]}}


def patch(text: str = PATCH) -> dict[str, Any]:
    return {"tool": "apply_patch", "arguments": {"patch": text}}


@pytest.fixture
def serve_scripted(serve: Start, folder: Path) -> Any:
    """A server whose default model plays `script`."""

    def start(script: Any, **environment: str) -> Server:
        path = folder / "model.json"
        path.write_text(json.dumps(script), encoding="utf-8")
        config = '[models]\ndefault = "script:x"\n[models.providers.script]\nkind = "scripted"\n'
        return serve(
            {}, root=folder, config=f"{config}script = {json.dumps(str(path))}\n", environment=environment
        )

    return start


class Elsewhere:
    """A tool `ring` on another connection, in a thread of its own; counts, and waits if it is told to."""

    meta: Mapping[str, Any] = {
        "name": "ring", "description": "Rings.",
        "parameters": {"type": "object", "properties": {"times": {"type": "integer"}}, "required": ["times"]},
    }  # fmt: skip

    def __init__(self, hold: bool = False) -> None:
        self.rung: list[int] = []
        self.begun, self.stopped, self.offered = threading.Event(), threading.Event(), threading.Event()
        self._hold = hold

    async def run(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        self.rung.append(arguments["times"])
        self.begun.set()
        await hear(Progress(partial="ding ", percent=50))
        if self._hold:
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
        return Answer(content=[{"type": "text", "text": f"rang {arguments['times']} times"}])

    @contextlib.contextmanager
    def on(self, server: Server) -> Iterator[None]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._serve(server),))
        self._closing = asyncio.Event()
        thread.start()
        try:
            assert self.offered.wait(60)
            yield
        finally:
            loop.call_soon_threadsafe(self._closing.set)
            thread.join(60)
            loop.close()

    async def _serve(self, server: Server) -> None:
        host = ToolHost({"ring": self})
        link = Link("client", handlers=host.handlers())
        target = Target(url=f"ws://127.0.0.1:{server.port}", token=TOKEN)
        connector = Connector(link, target, backoff=Backoff(first_s=0.05, most_s=0.2))
        running = asyncio.create_task(connector.run())
        await link.ready()
        await host.offer(link)
        self.offered.set()
        await self._closing.wait()
        await connector.close()
        await running


def of(server: Server, run: Mapping[str, Any], *types: str) -> list[dict[str, Any]]:
    return [event["data"] for event in server.events(run["id"], *types)]


def test_the_chain_of_model_agent_and_tool_elsewhere(serve_scripted: Any) -> None:
    script = [
        {"reasoning": "Hm.", "text": "First a look.", **shell("echo seen; exit 3")},
        {"text": "Now the bell.", "tool": "ring", "arguments": {"times": 3}},
        patch(),
        {"text": "Rung and written."},
    ]
    server = serve_scripted(script)
    bell = Elsewhere()
    with bell.on(server):
        run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot")
        ended = server.until(run["id"], "completed")
    assert bell.rung == [3]
    assert (server.workspace() / "note.txt").read_text() == "Hello\n"
    events = server.events(run["id"])
    assert gap_free(events)
    started = [e["data"]["item_id"] for e in events if e["type"] in {"command.started", "tool.started"}]
    done = [e["data"]["item_id"] for e in events if e["type"] in {"command.completed", "tool.completed"}]
    assert len(started) == 3
    assert sorted(started) == sorted(done) == sorted(set(done))
    assert [d["exit_code"] for d in of(server, run, "command.completed")] == [3]
    texts = [d["text"] for d in of(server, run, "message.completed")]
    assert texts == ["First a look.", "Now the bell.", "Rung and written."]
    assert ended["stats"]["tokens"]["total"] == 4 * 1050
    calls = server.http.get(f"/api/v1/runs/{run['id']}/model-calls").json()
    assert len(calls["items"]) == 4
    assert sum(call["usage"]["total"] for call in calls["items"]) == ended["stats"]["tokens"]["total"]


def test_a_real_endpoint_gives_the_same_and_its_key_goes_nowhere(serve: Start, folder: Path) -> None:
    script = [
        {"text": "I write.", **patch()},
        {"text": "Look.", **shell("env; cat note.txt")},
        {"text": "Done."},
    ]
    with ModelServer(script) as model:
        config = (
            '[models]\ndefault = "mine:scripted-model"\n[models.providers.mine]\nkind = "openai"\n'
            f'base_url = "{model.url}/v1"\nkey = {{ env = "MY_KEY" }}\n'
        )
        server = serve({}, root=folder, config=config, environment={"MY_KEY": SECRET})
        run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot")
        server.until(run["id"], "completed")
        assert model.requests
    assert (server.workspace() / "note.txt").read_text() == "Hello\n"
    told = json.dumps(server.events(run["id"]))
    assert SECRET not in told
    assert "ova_" not in told
    kept = [
        path for path in server.data.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert kept == []


def test_a_tool_that_destroys_is_called_elsewhere_only_as_a_person_has_allowed(serve_scripted: Any) -> None:
    calls = [{"tool": "ring", "arguments": {"times": times}} for times in (1, 2)]
    server = serve_scripted([*calls, {"text": "Rung, or not."}])
    bell = Elsewhere()
    bell.meta = {**bell.meta, "destructive": True}
    with bell.on(server):
        run = server.submit(
            "agent", workspace=str(server.workspace()), mode="oneshot", approval_policy="ask_all"
        )
        for option in ("allow_once", "reject_once"):
            (approval,) = wait_until(lambda: _pending(server), within=90, what="somebody is asked")
            answer = server.http.post(
                f"/api/v1/approvals/{approval['id']}/resolve",
                json={"option": option, "digest": approval["digest"]},
            )
            assert answer.status_code == 200, answer.text
        server.until(run["id"], "completed")
    assert bell.rung == [1]
    ended = of(server, run, "tool.completed")
    assert [tool["ok"] for tool in ended] == [True, False]


def _pending(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.http.get("/api/v1/approvals").json()["items"]
    return [one for one in found if one["state"] == "pending"]


def test_it_works_in_a_sandbox_without_any_network(serve_scripted: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        look = f"(exec 3<>/dev/tcp/127.0.0.1/{there.getsockname()[1]}) && echo reach''ed; env"
        server = serve_scripted(
            [shell(look), patch(), {"text": "Done."}],
            OVERNIGHT_SANDBOX_MODE="auto", OVERNIGHT_SANDBOX_NETWORK="off",
        )  # fmt: skip
        run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot")
        ended = server.until(run["id"], "completed")
    if ended["sandbox_effective"] == "none":
        pytest.skip("no agent can be confined on this machine")
    assert (server.workspace() / "note.txt").read_text() == "Hello\n"
    printed = json.dumps(of(server, run, "command.completed", "output.recorded"))
    assert "reached" not in printed
    assert "ova_" not in printed


def test_a_cancel_goes_through_to_the_tool_elsewhere(serve_scripted: Any) -> None:
    server = serve_scripted([{"tool": "ring", "arguments": {"times": 1}}, {"text": "never said"}])
    bell = Elsewhere(hold=True)
    with bell.on(server):
        run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot")
        assert bell.begun.wait(90)
        server.control(run["id"], "cancel")
        ended = server.until(run["id"], "cancelled")
        assert bell.stopped.wait(30)
    assert ended["cancellation"]["survivors"] == 0
    assert bell.rung == [1]


def test_a_cancel_goes_through_to_the_model(serve_scripted: Any) -> None:
    server = serve_scripted([{"text": "a " * 400, "delay_s": 0.05}])
    run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot")
    server.seen(run["id"], "turn.started")
    wait_until(lambda: _asked(server), within=90, what="the model is asked")
    server.control(run["id"], "cancel")
    assert server.until(run["id"], "cancelled")["cancellation"]["survivors"] == 0


def _asked(server: Server) -> bool:
    return any(path.stat().st_size > 200 for path in server.data.glob("homes/**/history.jsonl"))


def test_a_killed_server_loses_nothing_of_an_agent_at_work(serve_scripted: Any) -> None:
    flag = "while [ ! -e go ]; do sleep 0.05; done; echo went"
    server = serve_scripted([{"text": "I wait.", **shell(flag)}, patch(), {"text": "All done."}])
    run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot")
    server.seen(run["id"], "command.started")
    server.kill()
    (server.workspace() / "go").touch()
    server.start()
    ended = server.until(run["id"], "completed")
    events = server.events(run["id"])
    assert gap_free(events)
    assert ended["attempt"] == 1
    assert [d["exit_code"] for d in of(server, run, "command.completed")] == [0]
    assert (server.workspace() / "note.txt").read_text() == "Hello\n"


def test_a_session_goes_on_with_what_was_said(serve_scripted: Any) -> None:
    server = serve_scripted({"turns": [[{"text": "First turn."}], [{"text": "Turn $TURN, as I remember."}]]})
    session = server.http.post("/api/v1/sessions", json={"mode": "chat"}).json()
    place = {"workspace": str(server.workspace()), "mode": "oneshot", "session_id": session["id"]}
    server.until(server.submit("agent", goal="One.", **place)["id"], "completed")
    run = server.submit("agent", goal="Two.", **place)
    server.until(run["id"], "completed")
    assert [d["text"] for d in of(server, run, "message.completed")] == ["Turn 2, as I remember."]


@pytest.mark.parametrize("option", ["allow_once", "reject_once"])
def test_a_person_is_asked_before_anything_is_changed(serve_scripted: Any, option: str) -> None:
    server = serve_scripted(
        [{"tool": "list_dir", "arguments": {"dir_path": "."}}, patch(), {"text": "Done."}]
    )
    run = server.submit(
        "agent", workspace=str(server.workspace()), mode="oneshot", approval_policy="ask_writes"
    )
    wait_until(
        lambda: server.http.get("/api/v1/approvals").json()["items"], within=90, what="somebody is asked"
    )
    (approval,) = server.http.get("/api/v1/approvals").json()["items"]
    assert "note.txt" in json.dumps(approval["context"])
    assert not (server.workspace() / "note.txt").exists()
    answer = server.http.post(
        f"/api/v1/approvals/{approval['id']}/resolve", json={"option": option, "digest": approval["digest"]}
    )
    assert answer.status_code == 200, answer.text
    server.until(run["id"], "completed")
    assert (server.workspace() / "note.txt").exists() is (option == "allow_once")


def test_without_a_model_a_run_fails_with_the_mend(serve: Start, folder: Path) -> None:
    server = serve({}, root=folder)
    run = server.submit("agent")
    ended = server.until(run["id"], "failed")
    assert "API_KEY" in json.dumps([ended["error"], server.http.get("/api/v1/backends").json()])
    again = server.http.post("/api/v1/runs", json={"backend": "agent", "goal": "x"})
    assert again.status_code >= 400
    assert "API_KEY" in again.text
