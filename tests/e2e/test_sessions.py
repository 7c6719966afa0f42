"""Sessions of the assembled program: messages over kill -9, agents that remember, and the duty that ends sessions."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import Server, kill_quietly, let_pass
from tests.e2e.test_connections import in_database
from tests.e2e.test_real_agents import MODELS, Drive, Name, drive

from overnight.ids import SessionId
from overnight.ports.unit_of_work import Transaction
from overnight.testing.agents import ACP_AGENT
from overnight.testing.model_server import ModelServer
from overnight.testing.signals import wait_until

API = "/api/v1/sessions"
DAY_MS = 86_400_000
__all__ = ["drive"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not beneath the temporary directory, where Codex refuses to keep its helpers."""
    found = Path(tempfile.mkdtemp(prefix="overnight-e2e-", dir="/var/tmp"))
    yield found
    shutil.rmtree(found, ignore_errors=True)


def made(server: Server, **body: Any) -> str:
    answer = server.http.post(API, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def post(server: Server, session: str, text: str, **body: Any) -> dict[str, Any]:
    """Until it is answered, as a client does whose server comes and goes."""

    def answered() -> httpx2.Response | None:
        try:
            return server.http.post(
                f"{API}/{session}/messages",
                json={"text": text, **body},
                headers={"Idempotency-Key": quote(text)},
            )
        except httpx2.TransportError:
            return None

    answer = wait_until(answered, within=90, every=0.02, what="an answer")
    assert answer is not None
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def said(server: Server, session: str, role: str) -> list[str]:
    page = server.http.get(f"{API}/{session}/history", params={"limit": 1000}).json()
    return [message["text"] for message in page["items"] if message["role"] == role]


def idle(server: Server, session: str) -> bool:
    runs = server.http.get(f"{API}/{session}/runs").json()["items"]
    waiting = server.http.get(f"{API}/{session}/messages").json()["items"]
    return bool(runs) and not waiting and all(run["state"] == "completed" for run in runs)


def test_no_message_is_lost_or_said_twice_over_kills(serve: Start) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    server = serve({"brief": [["read_prompt"], ["sleep", 0.05], ["print", "ok"]]})
    session = made(server, config={"backend": "brief"})
    texts = [f"message {n}" for n in range(25)]
    speaker = threading.Thread(target=lambda: [post(server, session, text) for text in texts])
    speaker.start()
    for _ in range(5):
        let_pass(chance.uniform(0.05, 0.4))  # the instant of the kill is the point of this test
        server.kill()
        server.start()
    speaker.join(120)
    wait_until(lambda: idle(server, session), within=90, every=0.05, what="everything to be said")
    assert said(server, session, "user") == texts
    turns = sum(run["stats"]["turns"] for run in server.http.get(f"{API}/{session}/runs").json()["items"])
    assert turns == len(texts)


def test_a_message_waits_for_the_turn_that_a_kill_did_not_end(serve: Start) -> None:
    server = serve({"slow": [["read_prompt"], ["pid", "agent.pid"], {"wait_for": "go"}, ["print", "ok"]]})
    session = made(server, config={"backend": "slow", "workspace": str(server.workspace())})
    run = post(server, session, "one")["run"]
    wait_until((server.workspace() / "agent.pid").exists, what="the agent")
    post(server, session, "two")
    server.kill()
    server.start()
    assert [one["text"] for one in server.http.get(f"{API}/{session}/messages").json()["items"]] == ["two"]
    assert post(server, session, "two")["message"]["state"] == "queued", "the same key, the same message"
    (server.workspace() / "go").touch()
    ended = server.until(run["id"], "completed")
    assert (ended["stats"]["turns"], ended["attempt"]) == (2, 1)
    assert said(server, session, "user") == ["one", "two"]


@pytest.mark.real_agents
@pytest.mark.parametrize("name", ["codex", "claude"])
def test_an_agent_remembers_over_runs_and_restarts(drive: Drive, name: Name) -> None:
    first, second = "Remember the word heliotrope.", "Which word was it?"
    with ModelServer([{"text": "Noted."}, {"text": "Heliotrope."}]) as model:
        server = drive(name, model.url)
        session = made(server, config={"backend": name, "model": MODELS[name]})
        server.until(post(server, session, first)["run"]["id"], "completed", within=120)
        server.kill()
        server.start()
        run = server.until(post(server, session, second)["run"]["id"], "completed", within=120)
        asked = str(model.requests[-1].body)
    assert first in asked, "the agent's own conversation goes on"
    prompt = server.http.get(f"/api/v1/runs/{run['id']}/turns/1/prompt").text
    assert prompt == f"{second}\n", "it was told nothing but the message"
    assert len(said(server, session, "user")) == 2


def test_the_duty_ends_sessions_that_nobody_came_back_to(serve: Start) -> None:
    server = serve({})
    active, fresh, aside, aside_long = [made(server, name=str(n)) for n in range(4)]
    for session in (aside, aside_long):
        assert server.http.post(f"{API}/{session}/suspend").status_code == 200
    server.send(signal.SIGTERM)
    assert server.wait() == 0

    def age(tx: Transaction) -> None:
        for session_id, days in ((active, 2), (aside, 2), (aside_long, 31)):
            session = tx.sessions.get(SessionId(session_id), None)
            tx.sessions.save(_older(session, days))

    in_database(server, age)
    server.start()
    wait_until(
        lambda: server.http.get(API, params={"state": "expired"}).json()["items"].__len__() == 2,
        what="two sessions to expire",
    )
    states = {one["id"]: one["state"] for one in server.http.get(API).json()["items"]}
    assert states == {active: "expired", fresh: "active", aside: "suspended", aside_long: "expired"}
    refused = server.http.post(f"{API}/{active}/messages", json={"text": "hello"})
    assert (refused.status_code, refused.json()["code"]) == (409, "session_expired")


def _older(session: Any, days: int) -> Any:
    from dataclasses import replace

    return replace(session, updated_at=session.updated_at - days * DAY_MS)


def asker(root: Path, *turns: Any) -> str:
    """The configuration of an ACP agent that keeps its sessions, and writes down what it is told."""
    script = {"turns": turns, "sessions": str(root / "kept.json")}
    command = [sys.executable, str(ACP_AGENT), json.dumps(script), "--log", str(root / "told.log")]
    return f'[backends.asker]\nkind = "acp"\ncommand = {json.dumps(command)}\n'


def told(root: Path, method: str) -> list[dict[str, Any]]:
    """The messages of that method, in order."""
    lines = (root / "told.log").read_text(encoding="utf-8").splitlines()
    return [message["params"] for line in lines if (message := json.loads(line)).get("method") == method]


def test_an_acp_agent_loads_its_session_again(serve: Start, tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir()
    server = serve({}, root=root, config=asker(root, [["say", "one"]], [["say", "two"]]))
    session = made(server, config={"backend": "asker"})
    server.until(post(server, session, "first")["run"]["id"], "completed")
    server.kill()
    server.start()
    server.until(post(server, session, "second")["run"]["id"], "completed")
    assert said(server, session, "assistant") == ["one", "two"], "the second turn of one and the same session"
    (loaded,) = told(root, "session/load")
    assert [prompt["sessionId"] for prompt in told(root, "session/prompt")] == [loaded["sessionId"]] * 2
    assert [prompt["prompt"][0]["text"] for prompt in told(root, "session/prompt")] == ["first\n", "second\n"]


def test_a_conversation_waits_for_a_decision_and_goes_on_in_order(serve: Start, tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir()
    call = {"toolCallId": "c1", "title": "make", "kind": "execute", "rawInput": {"command": "make"}}
    server = serve(
        {}, root=root, config=asker(root, [["permission", call]], [["say", "built"]], [["say", "next"]])
    )
    session = made(server, config={"backend": "asker", "approval_policy": "ask_all"})
    run = post(server, session, "build it")["run"]["id"]
    server.until(run, "blocked")
    assert server.http.get(f"{API}/{session}").json()["phase"] == "review"
    post(server, session, "what now?")
    server.kill()
    for left in server.descendants():
        kill_quietly(left)
    server.start()
    server.until(run, "waiting")
    (approval,) = server.http.get("/api/v1/approvals", params={"session_id": session}).json()["items"]
    body = {"option": "allow_once", "digest": approval["digest"]}
    assert server.http.post(f"/api/v1/approvals/{approval['id']}/resolve", json=body).status_code == 200
    server.until(run, "completed")
    again, last = told(root, "session/prompt")[1:]
    assert "build it" in again["prompt"][0]["text"], "the turn is done again with its own words"
    assert "the decision is" in again["prompt"][0]["text"]
    assert last["prompt"][0]["text"] == "what now?\n"
    assert [text for text in said(server, session, "user") if "decision" not in text] == [
        "build it",
        "what now?",
    ]
    assert said(server, session, "assistant")[-2:] == ["built", "next"]
