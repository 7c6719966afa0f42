"""Several servers as one: what is asked of any of them reaches the run, and all of them show the same."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import psycopg
from tests.cluster.harness import Cluster, Node, Start
from tests.e2e.harness import Subscriber, gap_free
from tests.e2e.test_approvals import pending

from overnight.testing.agents import ACP_AGENT
from overnight.testing.signals import wait_until

CHATTY = [["read_prompt"], ["lines", 300], {"wait_for": ["enough"]}, ["lines", 20]]


def asker(made: Cluster, *moves: object) -> str:
    """The configuration of an agent that asks."""
    command = [sys.executable, str(ACP_AGENT), json.dumps({"turns": [list(moves)]})]
    return f'[backends.asker]\nkind = "acp"\ncommand = {json.dumps(command)}\n'


def test_two_servers_show_one_history_live_and_control_what_neither_carries_out(cluster: Start) -> None:
    made = cluster({"chatty": CHATTY})
    first, second, _ = made.server("s1"), made.server("s2"), made.worker("w")
    place = made.folder("w")
    run = first.submit("chatty", mode="oneshot", workspace=str(place))["id"]
    readers = [Subscriber(server, f"/api/v1/runs/{run}/stream") for server in (first, second)]
    second.seen(run, "turn.started")
    assert second.control(run, "pause", when="after_turn").status_code < 300
    first.until(run, "pausing")
    assert first.control(run, "resume").status_code < 300
    second.until(run, "running")
    (place / "enough").touch()
    assert first.until(run, "completed") == second.until(run, "completed")
    told = [reader.events() for reader in readers]
    assert gap_free(told[0])
    assert readers[0].frames == readers[1].frames
    assert told[0] == first.events(run) == second.events(run)
    other = second.submit("chatty", mode="oneshot", workspace=str(made.folder("other")))["id"]
    first.seen(other, "turn.started")
    assert first.control(other, "cancel").status_code < 300
    assert second.until(other, "cancelled")["cancellation"]["survivors"] == 0


def test_a_decision_at_another_server_reaches_the_agent(cluster: Start) -> None:
    made = cluster()
    call = {"toolCallId": "c1", "title": "make", "kind": "execute", "rawInput": {"command": "make"}}
    made.config += asker(made, ["permission", call])
    first, second, _ = made.server("s1"), made.server("s2"), made.worker("w")
    place = str(made.folder("w"))
    run = first.submit("asker", mode="oneshot", approval_policy="ask_all", workspace=place)["id"]
    second.until(run, "blocked")
    (approval,) = pending(second)
    assert pending(first) == [approval]
    body = {"option": "allow_once", "digest": approval["digest"]}
    assert second.http.post(f"/api/v1/approvals/{approval['id']}/resolve", json=body).status_code == 200
    first.until(run, "completed")
    said = "".join(event["data"]["text"] for event in first.events(run, "message.completed"))
    assert said == "[allow_once]"


def test_files_of_another_host_are_refused_with_its_name(cluster: Start) -> None:
    made = cluster()
    away, worker = made.crew("s1", "w")
    here = made.server("s2", data_of=worker.root)
    run = away.submit("busy", mode="oneshot", workspace=str(made.folder("w")))["id"]
    made.living(run)
    made.enough(run)
    away.until(run, "completed")
    for path in ("turns/1/prompt", "turns/1/output?stream=stdout", "diff", "files"):
        answer = away.http.get(f"/api/v1/runs/{run}/{path}")
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["host_id"]) == (
            409,
            "on_another_host",
            worker.host,
        )
        assert problem["mend"]
        assert here.http.get(f"/api/v1/runs/{run}/{path}").status_code == 200
    missing = away.http.get(f"/api/v1/runs/{run}/turns/7/prompt")
    assert missing.status_code == 404


def test_a_directory_that_no_worker_could_see_is_refused_at_once(cluster: Start) -> None:
    made = cluster()
    server = made.server("s")

    def refused(path: Path) -> tuple[int, str, str]:
        body = {"goal": "g", "backend": "busy", "workspace": str(path)}
        answer = server.http.post("/api/v1/runs", json=body)
        return answer.status_code, answer.json().get("code", ""), answer.json().get("mend", "")

    status, code, mend = refused(server.workspace())
    assert (status, code) == (422, "workspace_refused")
    assert "worker.shared_roots" in mend
    status, code, mend = refused(Path("/srv/elsewhere/repository"))
    assert (status, code, str(made.shared) in mend) == (422, "workspace_refused", True)
    assert refused(made.shared / "not-mounted-here")[0] == 202
    assert refused(made.shared / ".." / "w")[0] == 422
    made.worker("w", data_of=server.root)
    assert refused(server.workspace())[0] == 202


def test_servers_know_of_backends_what_workers_have_found(cluster: Start) -> None:
    made = cluster()
    server = made.server("s")
    check = server.http.get("/api/v1/backends/busy").json()
    assert (check["status"], check["problems"][0]["code"]) == ("warn", "no_worker")
    made.worker("w", "--backend", "busy")

    def found() -> bool:
        return bool(server.http.post("/api/v1/backends/busy/check").json()["status"] == "ok")

    wait_until(found, within=60, every=0.05, what="the worker's preflight")
    assert server.http.post("/api/v1/backends/echo/check").json()["problems"][0]["code"] == "no_worker"


def test_a_worker_of_another_version_works_beside_this_one(cluster: Start) -> None:
    made = cluster()
    server, _, older = made.crew("s", "new", "old")
    with psycopg.connect(made.url, autocommit=True) as database:
        database.execute("UPDATE workers SET version = '0.0.9' WHERE host_id = %s", [older.host])
    shown = {row["host_id"]: row for row in server.http.get("/api/v1/workers").json()["items"]}
    assert shown[older.host]["version"] == "0.0.9"
    assert shown[older.host]["fresh"]
    runs = [server.submit("echo", mode="oneshot")["id"] for _ in range(20)]
    hosts = {server.until(run, "completed")["host_id"] for run in runs}
    assert hosts <= {node.host for node in made.nodes}


def test_a_data_directory_has_one_worker(cluster: Start) -> None:
    made = cluster()
    worker = made.worker("w")
    second = made.node("again", "worker", data_of=worker.root)
    second.start(wait=False)
    assert second.wait() == 3
    assert "overnight up --no-worker" in second.words()
    beside = made.server("s", data_of=worker.root)
    assert beside.host == worker.host
    beside.submit("echo", mode="oneshot")
    assert states(beside) == ["active", "active"]
    worker.kill()
    worker.start()
    assert states(beside) == ["active", "active", "gone"]


def states(server: Node) -> list[str]:
    return sorted(row["state"] for row in server.http.get("/api/v1/workers").json()["items"])


def test_a_worker_ends_in_order_and_when_it_is_idle(cluster: Start) -> None:
    made = cluster()
    server, worker = made.crew("s", "w")
    run = server.submit("busy", mode="oneshot", workspace=str(made.folder("w")))["id"]
    [agent] = made.living(run)
    server.seen(run, "turn.started")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert not agent.alive
    assert server.run(run)["state"] == "queued"
    assert worker.words().count("offers ") == 1
    made.enough(run)
    idle: Node = made.node("idle", "worker")
    idle.start("--exit-when-idle", "3s")
    assert server.until(run, "completed")["attempt"] == 1
    assert idle.wait() == 0
    shown = {row["host_id"]: row["state"] for row in server.http.get("/api/v1/workers").json()["items"]}
    assert (shown[worker.host], shown[idle.host]) == ("gone", "gone")


def test_a_server_with_a_worker_in_it_is_a_host_like_any_other(cluster: Start) -> None:
    made = cluster(OVERNIGHT_LEASE_S="30")
    node = made.node("all-in-one", "up").start()
    run = node.submit("busy", mode="oneshot", workspace=str(node.workspace()))["id"]
    [agent] = made.living(run)
    node.seen(run, "turn.started")
    node.kill()
    node.start()
    node.seen(run, "run.recovered")
    made.enough(run)
    assert node.until(run, "completed")["attempt"] == 1
    assert len(made.lives(run)) == 1
    assert not agent.alive
    assert states(node) == ["active", "gone"]
    report = node.http.get("/api/v1/doctor").json()["checks"]
    assert {check["name"]: check["status"] for check in report}["redis"] == "ok"
