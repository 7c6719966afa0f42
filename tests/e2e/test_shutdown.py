"""An orderly end leaves no agent behind and uses up no attempt; a handover leaves the agent alone."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.e2e.conftest import Start
from tests.e2e.harness import Subscriber, gap_free, written

from overnight.testing.signals import wait_until

GRACE_S = 2


def test_sigterm_stops_agents_and_the_run_goes_on_at_the_next_start(serve: Start) -> None:
    script = [
        [["read_prompt"], ["ignore"], ["daemon", "daemon.pid"], ["pid", "agent.pid"], ["forever"]],
        [["read_prompt"], ["print", "went on"]],
    ]
    server = serve({"deaf": script}, environment={"OVERNIGHT_GRACE_S": str(GRACE_S)})
    work = server.workspace()
    run = server.submit("deaf", mode="oneshot", workspace=str(work))
    subscriber = Subscriber(server, f"/api/v1/runs/{run['id']}/stream")
    pids = written(work, "agent.pid", "daemon.pid")
    server.until(run["id"], "running")
    wait_until(lambda: subscriber.connections)
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    server.start()
    ended = server.until(run["id"], "completed")
    assert ended["attempt"] == 1
    events = server.events(run["id"])
    assert gap_free(events)
    assert "run.requeued" in [event["type"] for event in events]
    assert subscriber.events() == events


def test_handover_does_not_disturb_the_agent(serve: Start) -> None:
    server = serve(
        {
            "steady": [
                ["read_prompt"],
                ["pid", "agent.pid"],
                {"lines_until": {"path": "enough", "per_second": 100}},
            ]
        }
    )
    work = server.workspace()
    run = server.submit("steady", mode="oneshot", workspace=str(work))
    wait_until((work / "agent.pid").exists)
    server.seen(run["id"], "output.recorded")
    server.send(signal.SIGUSR2)
    assert server.wait() == 0
    assert Path(f"/proc/{(work / 'agent.pid').read_text(encoding='utf-8')}").exists()
    server.start()
    server.seen(run["id"], "run.recovered")
    (work / "enough").touch()
    ended = server.until(run["id"], "completed")
    assert ended["attempt"] == 1
    events = server.events(run["id"])
    assert gap_free(events)
    lines = int((work / "enough.count").read_text(encoding="utf-8"))
    assert server.printed(run["id"]) == "".join(f"line {n}\n" for n in range(1, lines + 1))
    assert [e["data"]["adopted"] for e in events if e["type"] == "run.recovered"] == [True]
    assert "turn.abandoned" not in [event["type"] for event in events]


def test_a_server_without_its_address_starts_no_agent(serve: Start) -> None:
    server = serve(
        {"stay": [["read_prompt"], ["pid", "agent.pid"], ["forever"]]}, environment={"OVERNIGHT_GRACE_S": "1"}
    )
    work = server.workspace()
    run = server.submit("stay", mode="oneshot", workspace=str(work))
    wait_until((work / "agent.pid").exists)
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    (work / "agent.pid").unlink()
    with socket.create_server(("127.0.0.1", server.port)):
        server.start(wait=False)
        assert server.wait() == 1
        assert "cannot listen" in server.words()
    assert not (work / "agent.pid").exists()
    server.start()
    server.until(run["id"], "running")
    assert "run.recovered" not in [event["type"] for event in server.events(run["id"])]
