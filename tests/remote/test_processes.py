"""Real processes: a server, and a worker that reaches it over HTTP and nothing else. Either is killed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import Server
from tests.remote.far import EXPECTED, FarWorker, agents, printed

from overnight.testing.signals import wait_until

Pair = Callable[..., tuple[Server, FarWorker]]
HOWTO = Path(__file__).parents[2] / "docs/howto/write-a-worker.md"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A server without a worker of its own, and one elsewhere."""
    made: list[tuple[Server, FarWorker]] = []

    def start(**settings: str) -> tuple[Server, FarWorker]:
        server = Server(root=tmp_path, config=agents(tmp_path / "agents"), environment=settings)
        server.start("--no-worker")
        worker = FarWorker(server, tmp_path / "far")
        made.append((server, worker))
        return server, worker.start().up()

    yield start
    for server, worker in made:
        worker.stop()
        server.stop()


def let_end(tmp_path: Path) -> None:
    """From now on agents go on to their end."""
    (tmp_path / "agents" / "gate").touch()


def begun(server: Server, run_id: str) -> None:
    wait_until(lambda: len(printed(server, run_id)) > 3, within=60, every=0.05, what="lines are recorded")


def test_either_is_killed_and_no_line_is_lost_or_doubled(pair: Pair, tmp_path: Path) -> None:
    # Longer than any server takes to start again: agents of leases that were not renewed are ended by their keepers.
    server, worker = pair(OVERNIGHT_LEASE_S="120")
    run = server.submit("lines", mode="oneshot")
    begun(server, run["id"])
    worker.kill()
    worker.start()
    wait_until(lambda: server.events(run["id"], "run.recovered"), within=60, what="it is taken up again")
    server.kill()
    server.start("--no-worker")
    let_end(tmp_path)
    ended = server.until(run["id"], "completed", within=90)
    assert printed(server, run["id"]) == EXPECTED
    assert (ended["attempt"], ended["turn"]) == (1, 1)
    assert [event["data"]["adopted"] for event in server.events(run["id"], "run.recovered")] == [True]
    assert [event["seq"] for event in server.events(run["id"])] == list(range(1, ended["last_seq"] + 1))
    print(f"worker: {worker.resident_kib()} KiB resident, {worker.resident_kib('RssAnon')} KiB of its own")


def test_it_carries_nothing_about_that_a_run_does_not_need(tmp_path: Path) -> None:
    """What reads options and checks what people write is loaded by the command alone, which the worker replaces."""
    server = Server(root=tmp_path)
    worker = FarWorker(server, tmp_path / "far", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    try:
        server.start("--no-worker")
        worker.start()
        server.until(server.submit("echo", mode="oneshot")["id"], "completed")
        said = (worker.root / "stderr").read_text()
    finally:
        worker.stop()
        server.stop()
    command, loaded = (_packages(part) for part in said.split("imported package\n")[1:])
    heavy = {
        "typer",
        "pydantic",
        "pydantic_core",
        "sqlalchemy",
        "email",
        "httpx2",
        "anyio",
        "difflib",
        "stringprep",
    }
    assert heavy & command, "so they would be seen"
    assert heavy & loaded == set()
    assert "overnight" in loaded


def _packages(listed: str) -> set[str]:
    return {line.rpartition("|")[2].split(".")[0].strip() for line in listed.splitlines() if "|" in line}


def test_a_cancel_arrives_and_nothing_is_left(pair: Pair) -> None:
    server, _ = pair()
    run = server.submit("lines", mode="oneshot")
    begun(server, run["id"])
    assert server.control(run["id"], "cancel").status_code == 202
    ended = server.until(run["id"], "cancelled")
    assert ended["cancellation"]["survivors"] == 0
    assert "sigkill" not in ended["cancellation"]["steps"], "it ends when it is asked to"


def test_a_run_waits_for_its_silent_host_and_goes_on_there_when_it_is_back(
    pair: Pair, tmp_path: Path
) -> None:
    server, worker = pair(OVERNIGHT_LEASE_S="6", OVERNIGHT_GRACE_S="0.5")
    run = server.submit("lines", mode="oneshot")
    begun(server, run["id"])
    worker.kill()
    # Its keeper ends the agent before the lease is over; the scratch folder is there, so no other host takes the run.
    wait_until(lambda: server.run(run["id"])["waiting_for"], within=90, what="the run says what it waits for")
    assert server.run(run["id"])["waiting_for"]["kind"] == "workspace"
    let_end(tmp_path)
    worker.start()
    ended = server.until(run["id"], "completed", within=90)
    lines = printed(server, run["id"])
    assert lines[-len(EXPECTED) :] == EXPECTED
    assert len(lines) < 2 * len(EXPECTED), "the first agent was ended"
    assert ended["attempt"] == 2


def test_the_documented_worker_works(pair: Pair, tmp_path: Path) -> None:
    server, _ = pair()
    code = re.search(r"```python\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert code is not None
    script, token = tmp_path / "worker.py", tmp_path / "token.txt"
    script.write_text(code[1])
    made = server.http.post("/api/v1/tokens", json={"name": "plain", "kind": "worker"}).json()
    token.write_text(made["secret"])
    plain = subprocess.Popen([sys.executable, str(script), f"http://127.0.0.1:{server.port}", str(token)])
    try:
        once = server.submit("remote", mode="oneshot", goal="say hello")
        more = server.submit("remote", mode="continuous", goal="go on", limits={"turns": 3})
        assert server.until(once["id"], "completed")["completion"]["by"] == "one_turn"
        assert server.until(more["id"], "completed", within=90)["stats"]["turns"] == 3
        texts = [event["data"]["text"] for event in server.events(once["id"], "message.completed")]
        assert set(texts) == {"SAY HELLO"}
        history = server.http.get(f"/api/v1/sessions/{once['session_id']}/history").json()["items"]
        assert [(one["role"], one["text"]) for one in history] == [
            ("user", "say hello"),
            ("assistant", "SAY HELLO"),
        ]
        assert [e["type"] for e in server.events(once["id"])] == [
            "run.queued", "run.started", "turn.started", "message.completed", "message.completed",
            "turn.completed", "run.completed",
        ]  # fmt: skip
    finally:
        plain.kill()
        plain.wait()
