"""Fifty conversations at once keep to themselves, and a session that is deleted leaves nothing behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import Server

CROWD = 50
CYCLES = 100
MOST_GROWTH = 10 * 1024 * 1024


def made(server: Server, **body: Any) -> dict[str, Any]:
    answer = server.http.post("/api/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def send(server: Server, session: str, text: str) -> dict[str, Any]:
    answer = server.http.post(f"/api/v1/sessions/{session}/messages", json={"text": text})
    assert answer.status_code == 202, answer.text
    return dict(answer.json()["run"])


def resident(server: Server) -> int:
    """Bytes of memory of the server's process."""
    assert server.process is not None
    pages = Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def test_fifty_sessions_made_at_once_are_fifty(serve: Start) -> None:
    server = serve({})
    with ThreadPoolExecutor(CROWD) as pool:
        sessions = list(pool.map(lambda n: made(server, name=f"s{n}"), range(CROWD)))
    assert len({session["id"] for session in sessions}) == CROWD
    listed = server.http.get("/api/v1/sessions", params={"limit": 200}).json()["items"]
    assert sorted(session["name"] for session in listed) == sorted(f"s{n}" for n in range(CROWD))


def test_fifty_conversations_show_no_foreign_word(serve: Start) -> None:
    """Each agent repeats what it was told; each history, log and answer has its own marker alone."""
    parrot = '[backends.parrot]\nkind = "command"\ncommand = ["cat"]\n'
    server = serve({}, config=parrot, environment={"OVERNIGHT_SLOTS": str(CROWD)})
    words = [[f"marker-{n}-one", f"marker-{n}-two"] for n in range(CROWD)]

    def begin(n: int) -> str:
        config = {"backend": "parrot", "workspace": str(server.workspace(f"w{n}"))}
        return str(made(server, name=f"s{n}", mode="chat", config=config)["id"])

    with ThreadPoolExecutor(16) as pool:
        sessions = list(pool.map(begin, range(CROWD)))
        runs = [list(pool.map(send, [server] * CROWD, sessions, [w[turn] for w in words])) for turn in (0, 1)]
    for n, session in enumerate(sessions):
        for run in (runs[0][n], runs[1][n]):
            server.until(run["id"], "completed", within=100)
        history = server.http.get(f"/api/v1/sessions/{session}/history").json()["items"]
        told = [message["text"] for message in history if message["role"] == "user"]
        assert told == words[n]
        everything = "".join(message["text"] for message in history)
        everything += "".join(server.printed(run_id) for run_id in {runs[0][n]["id"], runs[1][n]["id"]})
        others = [f"marker-{m}-" for m in range(CROWD) if m != n]
        assert not any(other in everything for other in others)
        assert everything.count(words[n][0]) > 1


@pytest.mark.timeout(600)
def test_a_hundred_sessions_come_and_go_without_a_trace(serve: Start) -> None:
    server = serve({"quick": [["read_prompt"], ["print", "done"]]})

    def cycle(n: int) -> None:
        session = made(server, name=f"s{n}", mode="chat", config={"backend": "quick"})["id"]
        server.until(send(server, session, f"hello {n}")["id"], "completed")
        assert server.http.delete(f"/api/v1/sessions/{session}").status_code == 204

    for n in range(20):
        cycle(n)
    before = resident(server)
    for n in range(CYCLES):
        cycle(n)
    assert resident(server) - before < MOST_GROWTH
    assert server.http.get("/api/v1/sessions").json()["items"] == []
    assert server.http.get("/api/v1/runs").json()["items"] == []
    for folder in ("runs", "homes"):
        assert not any((server.data / folder).iterdir())
